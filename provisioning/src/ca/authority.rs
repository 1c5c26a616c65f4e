//! What each authority may sign: purposes, names, validity.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use aws_lc_rs::rand;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, CustomExtension, DistinguishedName, DnType,
    GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints, PublicKeyData, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{AUTHORITY_BACKDATE_SECS, AUTHORITY_SECS, CaError, ROOT_SECS};
use crate::names::LAN_DOMAIN;
use crate::oid;

/// An issuing authority, named after whom it certifies.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Authority {
    /// The cloud's servers.
    Servers,
    /// Boxes in service: the 72-hour identity (LDevID).
    Boxes,
    /// Those who may command the fleet, and what the cloud states to customers.
    Commands,
    /// What a box gets at the factory: IDevID, IAK; and the signers of factory records.
    Factory,
    /// A box's endpoint on the customer's network.
    Lan,
}

impl Authority {
    /// Every authority.
    pub const ALL: [Self; 5] = [
        Self::Servers,
        Self::Boxes,
        Self::Commands,
        Self::Factory,
        Self::Lan,
    ];

    /// Its name, which is also its directory.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Servers => "servers",
            Self::Boxes => "boxes",
            Self::Commands => "commands",
            Self::Factory => "factory",
            Self::Lan => "lan",
        }
    }

    /// The only purposes that its leaves may have.
    const fn purposes(self) -> &'static [&'static [u8]] {
        match self {
            Self::Servers | Self::Lan => &[oid::EKU_SERVER_AUTH],
            Self::Boxes => &[oid::EKU_CLIENT_AUTH],
            Self::Commands => &[oid::EKU_COMMAND, oid::EKU_STATEMENT],
            Self::Factory => &[oid::EKU_CLIENT_AUTH, oid::EKU_TCG_AIK, oid::EKU_RECORD],
        }
    }

    fn name_constraints(self) -> NameConstraints {
        let dns = |name: &str| GeneralSubtree::DnsName(name.to_owned());
        let v4 = |a, b, c, d, prefix| {
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(
                Ipv4Addr::new(a, b, c, d).into(),
                prefix,
            ))
        };
        let v6 = |first, prefix| {
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(
                Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0).into(),
                prefix,
            ))
        };
        match self {
            Self::Servers => NameConstraints {
                permitted_subtrees: vec![],
                excluded_subtrees: vec![dns("local"), dns(LAN_DOMAIN)],
            },
            // A box and a signer have no name that a server could have.
            Self::Boxes | Self::Commands | Self::Factory => NameConstraints {
                permitted_subtrees: vec![],
                excluded_subtrees: vec![dns(""), v4(0, 0, 0, 0, 0), v6(0, 0)],
            },
            // Private, link-local and loopback addresses (RFC 1918, 3927, 4193, 4291).
            Self::Lan => NameConstraints {
                permitted_subtrees: vec![
                    dns("local"),
                    dns(LAN_DOMAIN),
                    v4(10, 0, 0, 0, 8),
                    v4(172, 16, 0, 0, 12),
                    v4(192, 168, 0, 0, 16),
                    v4(169, 254, 0, 0, 16),
                    v4(127, 0, 0, 0, 8),
                    v6(0xfc00, 7),
                    v6(0xfe80, 10),
                    GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(
                        Ipv6Addr::LOCALHOST.into(),
                        128,
                    )),
                ],
                excluded_subtrees: vec![],
            },
        }
    }

    pub(super) fn params(self, now: u64) -> Result<CertificateParams, CaError> {
        let name = match self {
            Self::Servers => "Longhaul issuing authority: servers",
            Self::Boxes => "Longhaul issuing authority: boxes",
            Self::Commands => "Longhaul issuing authority: commands",
            Self::Factory => "Longhaul issuing authority: factory",
            Self::Lan => "Longhaul issuing authority: customer networks",
        };
        let mut params = base(name, now - AUTHORITY_BACKDATE_SECS, now + AUTHORITY_SECS)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.name_constraints = Some(self.name_constraints());
        params.custom_extensions = vec![extended_key_usage(self.purposes())];
        Ok(params)
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

pub(super) fn root_params(now: u64) -> Result<CertificateParams, CaError> {
    let mut params = base(
        "Longhaul fleet root",
        now - AUTHORITY_BACKDATE_SECS,
        now + ROOT_SECS,
    )?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(params)
}

/// A certificate with this common name and validity (seconds since 1970), a random serial number
/// and no purpose yet.
pub(crate) fn base(
    common_name: &str,
    not_before: u64,
    not_after: u64,
) -> Result<CertificateParams, CaError> {
    // 127 random bits: RFC 5280 wants at most 20 bytes and a positive number.
    let mut serial = [0; 16];
    rand::fill(&mut serial).map_err(|_| rcgen::Error::RingUnspecified)?;
    serial[0] = serial[0] & 0x7f | 0x40;

    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Longhaul");
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.not_before =
        rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(not_before);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(not_after);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// The extension as we write it: rcgen's own knows 64-bit arcs only, ours has 128 bits.
pub(crate) fn extended_key_usage(purposes: &[&[u8]]) -> CustomExtension {
    CustomExtension::from_oid_content(&[2, 5, 29, 37], oid::extended_key_usage(purposes))
}

/// When the certificate expires (seconds since 1970), if it parses and `key` is its key.
pub(super) fn check(certificate: &CertificateDer<'_>, key: Option<&KeyPair>) -> Option<u64> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    if key.is_some_and(|key| parsed.public_key().raw != key.subject_public_key_info()) {
        return None;
    }
    u64::try_from(parsed.validity().not_after.timestamp()).ok()
}
