//! Who may call: certificates of the cluster's authority, or its secret.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use stormkeep::peers::Settings;
use stormkeep_core::env::CallError;

use crate::fixture::{call, echo, echoed, listen, network, read};

/// Writes an authority and a certificate of it for this machine; settings that use them.
fn certificates(room: &Path, name: &str) -> Settings {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned(), "stormkeep".to_owned()];
    let own = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    let file = |what: &str, text: String| {
        let file = room.join(format!("{name}-{what}.pem"));
        fs::write(&file, text).unwrap();
        Some(file)
    };
    Settings {
        tls_certificate: file("certificate", own.pem()),
        tls_key: file("key", key.serialize_pem()),
        tls_authority: file("authority", authority.pem()),
        ..Settings::default()
    }
}

fn secret(room: &Path, secret: &str) -> Option<std::path::PathBuf> {
    let file = room.join(secret);
    fs::write(&file, secret.repeat(8)).unwrap();
    Some(file)
}

#[tokio::test]
async fn nodes_of_one_authority_trust_each_other() {
    let room = tempfile::tempdir().unwrap();
    let ours = certificates(room.path(), "ours");
    let peer = listen(&ours, echo);
    let (network, _) = network(&ours, peer.address).await;
    assert_eq!(call(&network, read(1)).await, echoed(1));
    let named = Settings { tls_name: Some("stormkeep".to_owned()), ..ours.clone() };
    let (network, _) = crate::fixture::network(&named, peer.address).await;
    assert_eq!(call(&network, read(2)).await, echoed(2));
    let misnamed = Settings { tls_name: Some("elsewhere".to_owned()), ..ours };
    let (network, _) = crate::fixture::network(&misnamed, peer.address).await;
    assert_eq!(call(&network, read(3)).await, Err(CallError::Refused));
    assert_eq!(peer.seen(), 2);
}

#[tokio::test]
async fn a_stranger_is_not_heard() {
    let room = tempfile::tempdir().unwrap();
    let ours = certificates(room.path(), "ours");
    let theirs = certificates(room.path(), "theirs");
    let peer = listen(&ours, echo);
    // Knows our authority, but has a certificate of another one, or shows none, or speaks no TLS.
    let other = Settings { tls_authority: ours.tls_authority.clone(), ..theirs.clone() };
    let none = Settings { secret_file: secret(room.path(), "abcd"), ..ours.clone() };
    for stranger in [&other, &none, &Settings::default(), &theirs] {
        let (network, _) = network(stranger, peer.address).await;
        for from in 0..3 {
            let answer = call(&network, read(from)).await;
            assert!(answer.is_err(), "{stranger:?}: {answer:?}");
        }
    }
    assert_eq!(peer.seen(), 0);
    // A door of somebody else is not spoken to.
    let door = listen(&theirs, echo);
    let (network, _) = network(&ours, door.address).await;
    assert_eq!(call(&network, read(1)).await, Err(CallError::Refused));
    assert_eq!(door.seen(), 0);
}

#[tokio::test]
async fn the_secret_opens_the_door() {
    let room = tempfile::tempdir().unwrap();
    let tls = certificates(room.path(), "ours");
    for base in [Settings::default(), tls] {
        let ours = Settings { secret_file: secret(room.path(), "abcd"), ..base.clone() };
        let peer = listen(&ours, echo);
        let (network, _) = network(&ours, peer.address).await;
        assert_eq!(call(&network, read(1)).await, echoed(1));
        let wrong = Settings { secret_file: secret(room.path(), "abce"), ..base.clone() };
        let longer = Settings { secret_file: secret(room.path(), "abcdabcd"), ..base.clone() };
        for stranger in [&wrong, &longer, &base] {
            let (network, _) = crate::fixture::network(stranger, peer.address).await;
            let answer = call(&network, read(2)).await;
            assert_eq!(answer, Err(CallError::Refused), "{stranger:?}");
        }
        assert_eq!(peer.seen(), 1);
    }
}
