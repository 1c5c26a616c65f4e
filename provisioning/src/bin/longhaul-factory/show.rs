//! `longhaul-factory show`: what a signed document or a certificate says, for people.

use std::error::Error;
use std::path::Path;

use longhaul_protocol::value::UnixMillis;
use longhaul_provisioning::ca::Pki;
use longhaul_provisioning::trust::certificates_from_pem;
use longhaul_provisioning::{factory, files, oid};
use serde_json::{Value, json};
use x509_parser::prelude::{ExtendedKeyUsage, GeneralName, X509Certificate};

/// Purposes that the parser does not know by name.
const PURPOSES: [(&[u8], &str); 5] = [
    (oid::EKU_COMMAND, "sign commands"),
    (oid::EKU_RECORD, "sign factory records"),
    (oid::EKU_STATEMENT, "sign tickets, receipts and beacons"),
    (oid::EKU_TCG_EK, "TPM endorsement key"),
    (oid::EKU_TCG_AIK, "TPM attestation key"),
];

pub fn run(pki: &Pki, path: &Path, json: bool) -> Result<(), Box<dyn Error>> {
    let bytes = files::read(path)?.ok_or_else(|| format!("{} is missing", path.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    if !text.contains("-----BEGIN") {
        let (kind, signer, says) = factory::read_document(path, &pki.root_anchor()?)?;
        eprintln!("{}, signed by {signer:?}; the signature holds", kind.typ());
        println!("{}", serde_json::to_string_pretty(&says)?);
        return Ok(());
    }
    let mut all = Vec::new();
    for der in certificates_from_pem(&text)? {
        let (_, certificate) = x509_parser::parse_x509_certificate(&der)?;
        all.push(describe(&certificate)?);
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    for (n, certificate) in all.iter().enumerate() {
        println!("certificate {}", n + 1);
        for (field, value) in certificate.as_object().into_iter().flatten() {
            let value = match value {
                Value::Array(values) => values
                    .iter()
                    .filter_map(Value::as_str)
                    .collect::<Vec<_>>()
                    .join(", "),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            println!("  {field:<11} {value}");
        }
    }
    Ok(())
}

fn describe(certificate: &X509Certificate<'_>) -> Result<Value, Box<dyn Error>> {
    let names = certificate.subject_alternative_name()?;
    let names: Vec<_> = names
        .iter()
        .flat_map(|e| &e.value.general_names)
        .map(|name| match name {
            GeneralName::URI(text) | GeneralName::DNSName(text) => (*text).to_owned(),
            other => other.to_string(),
        })
        .collect();
    let purposes = certificate
        .extended_key_usage()?
        .map(|e| purposes(e.value))
        .unwrap_or_default();
    let date = |secs: i64| super::date(UnixMillis(secs.saturating_mul(1000)));
    let validity = certificate.validity();
    Ok(json!({
        "subject": certificate.subject().to_string(),
        "issuer": certificate.issuer().to_string(),
        "names": names,
        "purposes": purposes,
        "authority": certificate.is_ca(),
        "serial": certificate.raw_serial_as_string(),
        "not_before": date(validity.not_before.timestamp()),
        "not_after": date(validity.not_after.timestamp()),
    }))
}

fn purposes(usage: &ExtendedKeyUsage<'_>) -> Vec<String> {
    let known = |id: &[u8]| {
        PURPOSES
            .iter()
            .find(|(p, _)| *p == id)
            .map(|(_, text)| *text)
    };
    let mut out = Vec::new();
    if usage.server_auth {
        out.push("TLS server".to_owned());
    }
    if usage.client_auth {
        out.push("TLS client".to_owned());
    }
    for other in &usage.other {
        out.push(known(other.as_bytes()).unwrap_or("another").to_owned());
    }
    out
}
