//! Access tokens: what an `EventSource` has in place of a key, since it can set no
//! header. An address is seen by proxies and histories, so a token is good for reading
//! alone, and for minutes.
//!
//! A token is the name of a key, when it ends in milliseconds since 1970, and a
//! signature of both, with dots between. What is signed with is the digest of the key,
//! so every instance can check a token, it ends with its key, and whoever has the
//! configuration could make one: that is a secret like the keys.

use std::rc::Rc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::config::{Key, Keys};
use crate::text::{hex, unhex};
use crate::time::UnixMillis;

/// How long a token is good for, in seconds: a stream that was opened by it goes on
/// until its key ends.
pub(crate) const SECONDS: u32 = 300;

/// What tells these signatures from any others that are made with the same digest.
const PURPOSE: &str = "sekali access token 1";

/// A token for `key`.
pub(crate) fn new(key: &Key, now: UnixMillis) -> String {
    let expires = now + i64::from(SECONDS) * 1_000;
    let signature = signing(key, expires).finalize().into_bytes();
    format!("{}.{expires}.{}", key.name, hex(&signature))
}

/// The key of a token, if it is one and has not ended.
pub(crate) fn key_of<'k>(keys: &'k Keys, token: &str, now: UnixMillis) -> Option<&'k Rc<Key>> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (name, expires) = signed.rsplit_once('.')?;
    let expires: UnixMillis = expires.parse().ok()?;
    let key = keys.named(name)?;
    let signature = unhex(signature)?;
    let is_right = signing(key, expires).verify_slice(&signature).is_ok();
    (is_right && now < expires).then_some(key)
}

fn signing(key: &Key, expires: UnixMillis) -> Hmac<Sha256> {
    // What is shorter than a block is filled up with zeros.
    let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
    block.iter_mut().zip(key.digest).for_each(|(byte, of_key)| *byte = of_key);
    let mut mac = Hmac::<Sha256>::new(&block);
    mac.update(format!("{PURPOSE}\n{}\n{expires}", key.name).as_bytes());
    mac
}
