//! How objectives are printed.

/// The display of an objective, on one line: the modules that it holds, its settings, and how it compares.
macro_rules! display {
    ($objective:ty: $([$($module:ident),+])? $($setting:ident),*) => {
        impl burn::module::ModuleDisplay for $objective {
            fn custom_settings(&self) -> Option<burn::module::DisplaySettings> {
                burn::module::DisplaySettings::new()
                    .with_new_line_after_attribute(false)
                    .optional()
            }

            fn custom_content(&self, content: burn::module::Content) -> Option<burn::module::Content> {
                $(let content = content$(.add(stringify!($module), &self.$module))+;)?
                content
                    $(.add(stringify!($setting), &format!("{:?}", self.$setting)))*
                    .add("normalize", &self.similarity.normalize)
                    .add("evaluation", &format!("{:?}", self.similarity.evaluation))
                    .optional()
            }
        }
    };
}
