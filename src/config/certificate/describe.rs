//! What a certificate says about itself, in text that cannot be mistaken for something else.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use super::super::hashing::hex;
use super::{Fingerprint, fingerprint};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// DNS names of its subjectAltName, in lower case; `*.example.com` for a wildcard.
    pub names: Vec<String>,
    /// It has addresses in its subjectAltName.
    pub has_addresses: bool,
    /// RFC 4514, printable ASCII.
    pub subject: String,
    pub issuer: String,
    /// `DNS:a.test,URI:spiffe://…`, printable ASCII; empty if there is none.
    pub alternatives: String,
    /// Seconds since the Unix epoch.
    pub not_before: i64,
    pub not_after: i64,
    pub fingerprint: Fingerprint,
}

impl Described {
    /// As other tools print it, without colons.
    pub fn fingerprint_hex(&self) -> String {
        hex(&self.fingerprint)
    }
}

pub fn describe(der: &[u8], certificate: &X509Certificate<'_>) -> Described {
    let mut names: Vec<String> = Vec::new();
    let mut has_addresses = false;
    let mut alternatives = String::new();
    let extension = certificate.subject_alternative_name().ok().flatten();
    for general in extension.iter().flat_map(|it| &it.value.general_names) {
        let text = match general {
            GeneralName::DNSName(name) => {
                let name = name.to_ascii_lowercase();
                if !names.contains(&name) {
                    names.push(name.clone());
                }
                format!("DNS:{}", listed(&name))
            }
            GeneralName::IPAddress(octets) => match address(octets) {
                Some(address) => {
                    has_addresses = true;
                    format!("IP:{address}")
                }
                None => continue,
            },
            GeneralName::URI(uri) => format!("URI:{}", listed(uri)),
            GeneralName::RFC822Name(mail) => format!("email:{}", listed(mail)),
            _ => continue,
        };
        if !alternatives.is_empty() {
            alternatives.push(',');
        }
        alternatives.push_str(&text);
    }
    Described {
        names,
        has_addresses,
        subject: distinguished(certificate.subject()),
        issuer: distinguished(certificate.issuer()),
        alternatives,
        not_before: certificate.validity().not_before.timestamp(),
        not_after: certificate.validity().not_after.timestamp(),
        fingerprint: fingerprint(der),
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(octets) {
        return Some(IpAddr::V4(Ipv4Addr::from(four)));
    }
    <[u8; 16]>::try_from(octets).ok().map(|sixteen| IpAddr::V6(Ipv6Addr::from(sixteen)))
}

/// RFC 4514: the most specific part first, and everything that could be read in two ways escaped. A common name
/// of `x,O=admins` must not read as an organisation.
fn distinguished(name: &X509Name<'_>) -> String {
    let mut out = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for part in parts.iter().rev() {
        if !out.is_empty() {
            out.push(',');
        }
        for (at, attribute) in part.iter().enumerate() {
            if at > 0 {
                out.push('+');
            }
            one(attribute, &mut out);
        }
    }
    out
}

/// By object identifier; RFC 4514 section 3 and what is common besides.
const SHORT: [(&str, &str); 11] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.5", "serialNumber"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

fn one(attribute: &AttributeTypeAndValue<'_>, out: &mut String) {
    let oid = attribute.attr_type().to_id_string();
    let short = SHORT.iter().find(|(id, _)| *id == oid).map(|(_, short)| *short);
    out.push_str(short.unwrap_or(&oid));
    out.push('=');
    match attribute.as_str() {
        Ok(text) => escaped(text, out),
        Err(_) => {
            out.push('#');
            out.push_str(&hex(attribute.as_slice()));
        }
    }
}

fn escaped(text: &str, out: &mut String) {
    let last = text.len().saturating_sub(1);
    for (at, byte) in text.bytes().enumerate() {
        let special = matches!(byte, b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' | b'=');
        let at_edge = (byte == b' ' && (at == 0 || at == last)) || (byte == b'#' && at == 0);
        match byte {
            _ if special || at_edge => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b' '..=b'~' => out.push(char::from(byte)),
            _ => write!(out, "\\{byte:02x}").expect(TO_STRING),
        }
    }
}

/// One item of a list: a comma, a percent sign and what is not visible ASCII are percent-encoded.
fn listed(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b',' | b'%' => write!(out, "%{byte:02X}").expect(TO_STRING),
            b'!'..=b'~' => out.push(char::from(byte)),
            _ => write!(out, "%{byte:02X}").expect(TO_STRING),
        }
    }
    out
}

const TO_STRING: &str = "writing to a string does not fail";
