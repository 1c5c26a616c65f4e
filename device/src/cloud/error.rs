//! What can go wrong between box and cloud.

use longhaul_protocol::enrol::Problem;
use longhaul_protocol::inventory::CloudEndpoint;

/// What every problem's type starts with.
const PROBLEM_PREFIX: &str = "urn:longhaul:problem:";

/// Why the cloud did not do as it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloudError {
    /// The box has no certificate that is valid now.
    #[error("the box is not enrolled")]
    NotEnrolled,
    /// The configuration names no endpoint.
    #[error("no cloud endpoint is configured")]
    NoEndpoint,
    /// The HTTP client could not be made.
    #[error("failed to make an HTTPS client")]
    Client(#[source] reqwest::Error),
    /// No endpoint answered.
    #[error("cloud {host}:{port} did not answer")]
    Unreachable {
        /// Its host name.
        host: String,
        /// Its port.
        port: u16,
        /// What failed on the way.
        source: reqwest::Error,
    },
    /// The answer broke off.
    #[error("answer to {path} was cut short")]
    Cut {
        /// What was asked.
        path: String,
        /// What failed on the way.
        source: reqwest::Error,
    },
    /// The answer is longer than any honest one.
    #[error("answer to {path} is too long")]
    TooLong {
        /// What was asked.
        path: String,
    },
    /// The answer is not what was asked for.
    #[error("malformed answer to {path}")]
    Malformed {
        /// What was asked.
        path: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The cloud refused.
    #[error("cloud refused {path}: {} {}: {}", problem.status, problem.title, problem.detail)]
    Refused {
        /// What was asked.
        path: String,
        /// What the cloud said.
        problem: Box<Problem>,
    },
}

impl CloudError {
    pub(super) fn unreachable(endpoint: &CloudEndpoint, source: reqwest::Error) -> Self {
        Self::Unreachable {
            host: endpoint.host.clone(),
            port: endpoint.https_port,
            source,
        }
    }

    /// Reads a refusal; what is no problem document keeps its status and loses its text.
    pub(super) fn refused(path: &str, status: u16, body: &[u8]) -> Self {
        let problem = serde_json::from_slice::<Problem>(body).unwrap_or_else(|_| Problem {
            kind: format!("{PROBLEM_PREFIX}unknown"),
            title: "the answer is not a problem document".to_owned(),
            status,
            detail: String::new(),
        });
        Self::Refused {
            path: path.to_owned(),
            problem: Box::new(Problem { status, ..problem }),
        }
    }

    /// The stable name of the problem that the cloud reported.
    pub fn problem(&self) -> Option<&str> {
        match self {
            Self::Refused { problem, .. } => problem.kind.strip_prefix(PROBLEM_PREFIX),
            _ => None,
        }
    }

    /// Whether asking again later may help: the network, or a fault at the cloud's side. 4xx is
    /// final, except where HTTP says otherwise (408, 425, 429).
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { problem, .. } => {
                problem.status >= 500 || matches!(problem.status, 408 | 425 | 429)
            }
            Self::NotEnrolled | Self::Unreachable { .. } | Self::Cut { .. } => true,
            Self::NoEndpoint | Self::Client(_) | Self::TooLong { .. } | Self::Malformed { .. } => {
                false
            }
        }
    }
}
