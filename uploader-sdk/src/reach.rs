//! Reaching a box at an address: TCP, then TLS, where the box must prove its own name.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use longhaul_protocol::ids::BoxId;
use longhaul_protocol::ticket::{Ticket, lan_name};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::ticket_file::check_roots;

/// Longest time for a TCP connection on a LAN, and again for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(4);

/// How an address was learnt.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// The user gave it.
    Given,
    /// The box announced it by mDNS.
    Mdns,
    /// The box had told the cloud, which wrote it into the ticket.
    Ticket,
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Given => "given address",
            Self::Mdns => "mDNS",
            Self::Ticket => "address in the ticket",
        })
    }
}

/// An address at which a box may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Serialize)]
pub struct Endpoint {
    /// Where.
    pub addr: SocketAddr,
    /// How it was learnt.
    pub via: Via,
}

/// Why a box cannot be reached at an address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReachError {
    /// No TCP connection.
    #[error("nothing answers at {addr}")]
    Tcp {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A TLS server that is not the ticket's box.
    #[error("the server at {addr} is not box {box_id}")]
    NotTheBox {
        /// The address.
        addr: SocketAddr,
        /// The box that was expected.
        box_id: BoxId,
        /// What is wrong with its certificate.
        source: rustls::Error,
    },
    /// No TLS.
    #[error("no encrypted connection with {addr}")]
    Tls {
        /// The address.
        addr: SocketAddr,
        /// What went wrong.
        source: std::io::Error,
    },
}

/// The verification of one box's certificate.
#[derive(Clone)]
pub struct BoxTls {
    /// For HTTP clients.
    pub config: rustls::ClientConfig,
    name: ServerName<'static>,
    box_id: BoxId,
}

impl BoxTls {
    /// Trusts only the ticket's roots, for the ticket's box.
    ///
    /// # Errors
    ///
    /// What is wrong with the ticket's roots.
    pub fn new(ticket: &Ticket) -> Result<Self, String> {
        let roots = check_roots(&ticket.root_pem)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            config,
            name: ServerName::try_from(lan_name(&ticket.box_id)).map_err(|e| e.to_string())?,
            box_id: ticket.box_id.clone(),
        })
    }

    /// Expects the address itself in the certificate instead of the box's name.
    #[must_use]
    pub fn for_address(mut self, addr: SocketAddr) -> Self {
        self.name = ServerName::IpAddress(addr.ip().into());
        self
    }

    /// Opens a TCP connection.
    ///
    /// # Errors
    ///
    /// [`ReachError::Tcp`].
    pub async fn tcp(&self, addr: SocketAddr) -> Result<TcpStream, ReachError> {
        let refused = |source| ReachError::Tcp { addr, source };
        timeout(HANDSHAKE, TcpStream::connect(addr))
            .await
            .map_err(|_| refused(std::io::ErrorKind::TimedOut.into()))?
            .map_err(refused)
    }

    /// Lets the server on `tcp` prove that it is the box.
    ///
    /// # Errors
    ///
    /// [`ReachError::NotTheBox`] or [`ReachError::Tls`].
    pub async fn prove(&self, tcp: TcpStream, addr: SocketAddr) -> Result<(), ReachError> {
        let broken = |source| ReachError::Tls { addr, source };
        let connector = TlsConnector::from(Arc::new(self.config.clone()));
        timeout(HANDSHAKE, connector.connect(self.name.clone(), tcp))
            .await
            .map_err(|_| broken(std::io::ErrorKind::TimedOut.into()))?
            .map(drop)
            .map_err(|error| match certificate_error(&error) {
                Some(source) => ReachError::NotTheBox {
                    addr,
                    box_id: self.box_id.clone(),
                    source,
                },
                None => broken(error),
            })
    }

    /// Both.
    ///
    /// # Errors
    ///
    /// [`ReachError`].
    pub async fn reach(&self, addr: SocketAddr) -> Result<(), ReachError> {
        self.prove(self.tcp(addr).await?, addr).await
    }
}

fn certificate_error(error: &std::io::Error) -> Option<rustls::Error> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    matches!(error, rustls::Error::InvalidCertificate(_)).then(|| error.clone())
}
