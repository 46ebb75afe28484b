//! How objectives are printed.

/// The display of an objective, on one line: the modules that it holds, its settings, and how it compares. Of a
/// softmax contrast: its scale and its criterion.
macro_rules! display {
    (contrast $objective:ty) => {
        display!(@ $objective, |objective, content| {
            objective.criterion.show(content.add("logit_scale", &objective.logit_scale))
        });
    };
    ($objective:ty: $([$($module:ident),+])? $($setting:ident),*) => {
        display!(@ $objective, |objective, content| {
            $(let content = content$(.add(stringify!($module), &objective.$module))+;)?
            content
                $(.add(stringify!($setting), &format!("{:?}", objective.$setting)))*
                .add("normalize", &objective.similarity.normalize)
                .add("evaluation", &format!("{:?}", objective.similarity.evaluation))
        });
    };
    (@ $objective:ty, |$self:ident, $content:ident| $shown:block) => {
        impl burn::module::ModuleDisplay for $objective {
            fn custom_settings(&self) -> Option<burn::module::DisplaySettings> {
                burn::module::DisplaySettings::new()
                    .with_new_line_after_attribute(false)
                    .optional()
            }

            fn custom_content(
                &self,
                $content: burn::module::Content,
            ) -> Option<burn::module::Content> {
                let $self = self;
                $shown.optional()
            }
        }
    };
}
