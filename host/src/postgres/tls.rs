//! TLS to PostgreSQL servers: by rustls, where Spin has OpenSSL.
//!
//! As there, `sslmode=disable` of an address is none, `prefer` (the default) is
//! TLS if the server offers it, `require` is TLS or nothing; and where there is
//! TLS the certificate and its name are checked, whichever of the two it was.
//!
//! Unlike OpenSSL, rustls wants the name of the server among the alternative
//! names of its certificate, and refuses a certificate that is an authority's
//! and the server's at once.

use std::sync::{Arc, LazyLock};

use anyhow::{Context, Result};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Whom the machine trusts.
static MACHINE_ROOTS: LazyLock<Vec<CertificateDer<'static>>> =
    LazyLock::new(|| rustls_native_certs::load_native_certs().certs);

/// A certificate that a guest trusts.
#[derive(Clone)]
pub(crate) struct RootCertificate {
    pem: String,
    der: CertificateDer<'static>,
}

impl RootCertificate {
    /// The first one in `pem`.
    ///
    /// # Errors
    ///
    /// What is none.
    pub(crate) fn from_pem(pem: String) -> Result<Self> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| anyhow::anyhow!("{error:?}"))
            .context("invalid root certificate")?;
        RootCertStore::empty().add(der.clone()).context("invalid root certificate")?;
        Ok(Self { pem, der })
    }

    /// As the guest gave it.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }
}

/// Makes connections that trust whom the machine trusts, and `root`.
pub(crate) fn connector(root: Option<&RootCertificate>) -> Result<MakeRustlsConnect> {
    let mut roots = RootCertStore::empty();
    // Some machines have certificates that rustls cannot read; others vouch then.
    roots.add_parsable_certificates(MACHINE_ROOTS.iter().cloned());
    if let Some(root) = root {
        roots.add(root.der.clone()).context("invalid root certificate")?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("no version of TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_refused() {
        for text in [
            "",
            "not PEM",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nAAAA",
        ] {
            assert!(RootCertificate::from_pem(text.to_owned()).is_err(), "{text:?}");
        }
    }
}
