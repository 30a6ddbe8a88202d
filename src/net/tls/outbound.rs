//! TLS to endpoints, as far as files change under it: the same watch and the same proof as for listeners. What
//! cannot be used is told, and what was read before goes on.

use std::sync::Arc;

use super::keeper::{Contents, content, shown, told};
use crate::config::certificate::{Files, Material, Roots};
use crate::config::model::{Name, Trust, UpstreamTls};
use crate::control::Live;
use crate::endpoints::SecureCell;

/// Of every service whose connections are encrypted.
pub fn cells(live: &Live) -> Vec<(Name, Arc<SecureCell>)> {
    let snapshot = live.load();
    let services = snapshot.runtime.services.iter();
    services.filter_map(|service| Some((service.name.clone(), service.secure.clone()?))).collect()
}

/// What the files make of it now: `None` if that is what it is already.
pub fn judge(of: &UpstreamTls, contents: &Contents, now: i64) -> Result<Option<UpstreamTls>, String> {
    let mut next = of.clone();
    if let Trust::File { path, roots } = &mut next.trust {
        *roots = Roots::read(&shown(path), content(path, contents)?).map_err(told)?;
    }
    if let Some(identity) = &mut next.identity {
        let (cert_name, key_name) = (shown(&identity.cert_file), shown(&identity.key_file));
        let files = Files {
            cert: (&cert_name, content(&identity.cert_file, contents)?),
            key: (&key_name, content(&identity.key_file, contents)?),
            ocsp: None,
        };
        let material = Material::of_client(files, now).map_err(told)?;
        let is_new = material.own.fingerprint != identity.material.own.fingerprint;
        // What is used goes on whatever its date; what is new must be good.
        if let (true, Some(unfit)) = (is_new, material.is_out_of_date(&cert_name, now)) {
            return Err(told(unfit));
        }
        if material != *identity.material {
            identity.material = Arc::new(material);
        }
    }
    Ok((next != *of).then_some(next))
}
