//! What an authority says about one certificate (OCSP, RFC 6960), stapled to it: good, about this certificate,
//! and fresh. Its signature is left to the clients, who know whom they trust.

use std::fmt;
use std::sync::Arc;

use x509_parser::der_parser::asn1_rs::{Any, FromDer, Header, Tag};
use x509_parser::prelude::{ASN1Time, X509Certificate};

use super::{Part, Unfit, date};

#[derive(Clone, PartialEq, Eq)]
pub struct Staple {
    pub bytes: Arc<[u8]>,
    /// Seconds since the Unix epoch; without it, newer information is always to be had.
    pub next_update: Option<i64>,
}

impl fmt::Debug for Staple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staple").field("next_update", &self.next_update).finish_non_exhaustive()
    }
}

impl Staple {
    pub fn is_fresh(&self, now: i64) -> bool {
        self.next_update.is_none_or(|next| now < next)
    }

    pub(super) fn read(name: &str, bytes: &[u8], leaf: &X509Certificate<'_>, now: i64) -> Result<Staple, Unfit> {
        let unfit = |why: String, hint| Unfit {
            part: Part::Staple,
            what: format!("the OCSP answer in `{name}` cannot be stapled"),
            why,
            hint,
            outdated: false,
        };
        let again = "fetch it again: `openssl ocsp -issuer CHAIN -cert CERT -url URL -respout FILE`";
        let answer = parse(bytes).ok_or_else(|| unfit("it is not a successful OCSP response in DER".into(), again))?;
        let Some(single) = answer.iter().find(|single| single.serial == leaf.raw_serial()) else {
            return Err(unfit("it is about another certificate".into(), again));
        };
        match single.status {
            Status::Good => {}
            Status::Revoked => {
                return Err(unfit("it says that the certificate is revoked".into(), "have a new certificate issued"));
            }
            Status::Unknown => return Err(unfit("its issuer does not know the certificate".into(), again)),
        }
        if single.this_update > now + CLOCKS_DIFFER {
            return Err(unfit(format!("it is good from {}", date(single.this_update)), "wait, or correct the clock"));
        }
        let staple = Staple { bytes: bytes.into(), next_update: single.next_update };
        match single.next_update {
            Some(next) if !staple.is_fresh(now) => {
                Err(Unfit { outdated: true, ..unfit(format!("it was good until {}", date(next)), again) })
            }
            Some(_) | None => Ok(staple),
        }
    }
}

/// What clocks of two machines may be apart.
const CLOCKS_DIFFER: i64 = 300;

struct Single<'a> {
    serial: &'a [u8],
    status: Status,
    this_update: i64,
    next_update: Option<i64>,
}

#[derive(Clone, Copy)]
enum Status {
    Good,
    Revoked,
    Unknown,
}

/// `id-pkix-ocsp-basic`, without tag and length.
const BASIC: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];

/// The single responses of a successful basic response.
fn parse(bytes: &[u8]) -> Option<Vec<Single<'_>>> {
    let mut response = inside(bytes, Tag::Sequence)?;
    if next(&mut response)?.data != [0] {
        return None;
    }
    let mut body = inside(next(&mut response)?.data, Tag::Sequence)?;
    if next(&mut body)?.data != BASIC {
        return None;
    }
    let mut basic = inside(next(&mut body)?.data, Tag::Sequence)?;
    let mut data = next(&mut basic)?.data;
    // version [0] optional, responderID, producedAt, responses
    let mut item = next(&mut data)?;
    if item.header.tag() == Tag(0) && item.data.first() == Some(&0x02) {
        item = next(&mut data)?;
    }
    let _responder = item;
    let _produced = next(&mut data)?;
    let mut responses = next(&mut data)?.data;
    let mut all = Vec::new();
    while !responses.is_empty() {
        let mut single = next(&mut responses)?.data;
        let mut certificate = next(&mut single)?.data;
        let (_algorithm, _name, _key) = (next(&mut certificate)?, next(&mut certificate)?, next(&mut certificate)?);
        let serial = next(&mut certificate)?.data;
        let status = match next(&mut single)?.header.tag() {
            Tag(0) => Status::Good,
            Tag(1) => Status::Revoked,
            _ => Status::Unknown,
        };
        let this_update = time(single, &mut single)?;
        let mut next_update = None;
        if let Some(item) = next(&mut single)
            && item.header.tag() == Tag(0)
        {
            let mut rest = item.data;
            next_update = Some(time(item.data, &mut rest)?);
        }
        all.push(Single { serial, status, this_update, next_update });
    }
    Some(all)
}

fn next<'a>(rest: &mut &'a [u8]) -> Option<Item<'a>> {
    let (after, header) = Header::from_der(rest).ok()?;
    let length = header.length().definite().ok()?;
    let data = after.get(..length)?;
    *rest = &after[length..];
    Some(Item { header, data })
}

struct Item<'a> {
    header: Header<'a>,
    data: &'a [u8],
}

/// The content of the one item that `bytes` are.
fn inside(bytes: &[u8], tag: Tag) -> Option<&[u8]> {
    let mut rest = bytes;
    let item = next(&mut rest)?;
    (item.header.tag() == tag && rest.is_empty()).then_some(item.data)
}

fn time<'a>(bytes: &'a [u8], rest: &mut &'a [u8]) -> Option<i64> {
    let (after, any) = Any::from_der(bytes).ok()?;
    let _ = any;
    let (_, time) = ASN1Time::from_der(bytes).ok()?;
    *rest = after;
    Some(time.timestamp())
}
