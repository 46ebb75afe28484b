//! The configs of objectives.

/// A config of public fields with defaults, and of `similarity`, how embeddings are compared. A
/// default that is no literal stands in quotes, as in Burn's `#[config(default = "..")]`.
macro_rules! config {
    (
        $(#[$documentation:meta])*
        pub struct $config:ident {
            $($(#[$field_documentation:meta])* $field:ident: $type:ty = $default:tt,)*
        }
    ) => {
        $(#[$documentation])*
        #[derive(burn::config::Config, Debug, PartialEq)]
        pub struct $config {
            $(
                $(#[$field_documentation])*
                #[config(default = $default)]
                pub $field: $type,
            )*
            /// How embeddings are compared. Default: by cosine, streaming.
            #[config(default = "crate::similarity::SimilarityConfig::new()")]
            pub similarity: crate::similarity::SimilarityConfig,
        }
    };
}
