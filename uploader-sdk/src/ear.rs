//! Listens for a header that S3 has no words for.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_runtime_api::box_error::BoxError;

/// Hears one header of the latest answer to a request that it is put beside.
#[derive(Clone, Debug)]
pub struct Ear {
    header: &'static str,
    heard: Arc<Mutex<Option<String>>>,
}

impl Ear {
    /// Listens for `header`.
    pub fn for_header(header: &'static str) -> Self {
        Self {
            header,
            heard: Arc::default(),
        }
    }

    /// What the header said, if it was there.
    pub fn heard(&self) -> Option<String> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.clone()
    }
}

impl Intercept for Ear {
    fn name(&self) -> &'static str {
        "ear"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let said = context.response().headers().get(self.header);
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = said.map(str::to_owned);
        Ok(())
    }
}
