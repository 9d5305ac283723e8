//! Calls to the API server, each with a bound.

use skyserve_kube::kube::{self, core::Status};
use skyserve_kube::{Advice, advice, explain};
use std::time::Duration;
use tokio::time::timeout;

/// Why a call came to nothing.
pub(crate) struct Problem {
    pub(crate) advice: Advice,
    pub(crate) text: String,
}

impl From<kube::Error> for Problem {
    fn from(error: kube::Error) -> Self {
        Self { advice: advice(&error), text: explain(&error) }
    }
}

impl From<Box<Status>> for Problem {
    fn from(status: Box<Status>) -> Self {
        kube::Error::Api(status).into()
    }
}

/// One call, once.
pub(crate) async fn in_time<T>(answer: Duration, call: impl Future<Output = kube::Result<T>>) -> Result<T, Problem> {
    match timeout(answer, call).await {
        Ok(answered) => answered.map_err(Problem::from),
        Err(_) => {
            let text = format!("the API server did not answer within {} s", answer.as_secs());
            Err(Problem { advice: Advice::Retry { after: None }, text })
        }
    }
}
