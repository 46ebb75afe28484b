//! How objectives are printed.

/// The display of an objective, on one line: the modules that it holds, settings of its config, and how
/// it compares embeddings.
macro_rules! display {
    ($objective:ty: $([$($module:ident),+])? $($setting:ident),*) => {
        impl burn::module::ModuleDisplay for $objective {
            fn custom_settings(&self) -> Option<burn::module::DisplaySettings> {
                burn::module::DisplaySettings::new()
                    .with_new_line_after_attribute(false)
                    .optional()
            }

            fn custom_content(
                &self,
                content: burn::module::Content,
            ) -> Option<burn::module::Content> {
                $(let content = content$(.add(stringify!($module), &self.$module))+;)?
                let content = content
                    $(.add(stringify!($setting), &format!("{:?}", self.config.$setting)))*;
                self.config.similarity.show(content).optional()
            }
        }
    };
}
