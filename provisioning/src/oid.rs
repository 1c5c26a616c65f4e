//! Object identifiers, as the contents of their DER encoding, and the few DER forms we write.

/// Longhaul's own arc: `2.25.169507592606839125981357551780034702892`, from the UUID
/// `7f85f98f-2172-40e0-9b1e-ea8b131aee2c` (ITU-T X.667: no registration is needed).
const ARC: [u8; 20] = [
    0x69, 0x81, 0xff, 0x85, 0xfc, 0xe3, 0xe4, 0x97, 0x92, 0x83, 0xc1, 0x9b, 0x8f, 0xba, 0xd1, 0xb1,
    0x98, 0xeb, 0xdc, 0x2c,
];

const fn own(last: u8) -> [u8; 21] {
    let mut oid = [0; 21];
    let mut i = 0;
    while i < ARC.len() {
        oid[i] = ARC[i];
        i += 1;
    }
    oid[20] = last;
    oid
}

/// Extended key usage: may sign commands and desired state.
pub const EKU_COMMAND: &[u8] = &own(1);
/// Extended key usage: may sign factory records (inventory, box configuration).
pub const EKU_RECORD: &[u8] = &own(2);
/// Extended key usage: may sign what the cloud states to customers (tickets, receipts).
pub const EKU_STATEMENT: &[u8] = &own(3);
/// Extended key usage `id-kp-serverAuth`, 1.3.6.1.5.5.7.3.1.
pub const EKU_SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
/// Extended key usage `id-kp-clientAuth`, 1.3.6.1.5.5.7.3.2.
pub const EKU_CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];
/// Extended key usage `tcg-kp-EKCertificate`, 2.23.133.8.1.
pub const EKU_TCG_EK: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x01];
/// Extended key usage `tcg-kp-AIKCertificate`, 2.23.133.8.3.
pub const EKU_TCG_AIK: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x03];

/// A DER element whose contents are shorter than 64 KiB.
pub(crate) fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let [.., high, low] = contents.len().to_be_bytes();
    match (high, low) {
        (0, 0..=0x7f) => out.push(low),
        (0, _) => out.extend([0x81, low]),
        _ => out.extend([0x82, high, low]),
    }
    out.extend_from_slice(contents);
    out
}

/// The value of an extended key usage extension: `SEQUENCE OF OBJECT IDENTIFIER`.
pub(crate) fn extended_key_usage(purposes: &[&[u8]]) -> Vec<u8> {
    let ids: Vec<u8> = purposes.iter().flat_map(|p| element(0x06, p)).collect();
    element(0x30, &ids)
}

/// An ECDSA signature as TLS and X.509 want it: `SEQUENCE { r INTEGER, s INTEGER }`.
pub(crate) fn ecdsa_signature(r: &[u8], s: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let start = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len());
        let mut value = bytes[start..].to_vec();
        // DER integers are signed: a leading one bit, or nothing at all, needs a zero in front.
        if value.first().is_none_or(|b| *b >= 0x80) {
            value.insert(0, 0);
        }
        element(0x02, &value)
    };
    element(0x30, &[integer(r), integer(s)].concat())
}

/// SubjectPublicKeyInfo of an uncompressed P-256 point (RFC 5480).
pub(crate) fn p256_spki(point: &[u8; 65]) -> Vec<u8> {
    const ALGORITHM: [u8; 21] = [
        0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
        0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
    ];
    let mut key = vec![0];
    key.extend_from_slice(point);
    element(0x30, &[ALGORITHM.to_vec(), element(0x03, &key)].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_shortest_and_positive() {
        let der = ecdsa_signature(&[0, 0, 0x80], &[0, 0x01]);

        assert_eq!(der, [0x30, 7, 0x02, 2, 0, 0x80, 0x02, 1, 1]);
    }

    #[test]
    fn a_p256_key_info_has_the_standard_length() {
        let spki = p256_spki(&[4; 65]);

        assert_eq!(spki.len(), 91);
        assert_eq!(spki[1], 89);
    }
}
