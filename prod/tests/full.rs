//! A disk that fills up under a real process: appends are refused by name, reads go on, nothing that was acknowledged is
//! lost, and when there is space again the same process takes appends.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test: what is wrong here must stop it

mod common;

use std::{fs, path::Path, process::Command, time::Duration};

use common::{Appended, Server, append, read};

/// A small file system of its own.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(mib: u32) -> Small {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={mib}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path());
        assert!(mount.status().unwrap().success(), "it takes root to mount a file system");
        Small(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "mounts a small file system, which takes root: .ci/run runs it"]
async fn a_full_disk_refuses_appends_until_there_is_space() {
    let disk = Small::mount(512);
    let data = disk.path().join("data");
    let flags = ["--disk-segment-bytes", "4194304", "--log-level", "warn"];
    let mut server = Server::start(&data, &flags).unwrap();
    let mut client = server.client().await.unwrap();
    let mut known = Vec::new();
    let refusal = loop {
        let id = known.len() as u128 + 1;
        let after = (known.len() as u64).checked_sub(1);
        match append(&mut client, "full", after, id, 100_000).await {
            Appended::Done(revision) => {
                assert_eq!(revision, known.len() as u64);
                known.push((revision, id));
            }
            Appended::Unknown(code, message) => break (id, after, code, message),
            other => panic!("{other:?}"),
        }
        assert!(known.len() < 5_000, "the disk does not fill up");
    };
    let (id, after, code, message) = refusal;
    println!("{} events of 100 kB, then {code:?}: {message}", known.len());
    assert!(!known.is_empty());
    // The one that was refused, or not answered in time, may be there later; what was acknowledged is there now.
    assert_eq!(read(&mut client, "full").await.unwrap(), known, "reads go on");
    // Nothing else is on this disk to be removed, so it is made larger.
    let mut grow = Command::new("mount");
    grow.args(["-o", "remount,size=1024m"]).arg(disk.path());
    assert!(grow.status().unwrap().success());
    let mut tries = 0;
    loop {
        match append(&mut client, "full", after, id, 100_000).await {
            Appended::Done(revision) => {
                known.push((revision, id));
                break;
            }
            Appended::Unknown(..) if tries < 30 => tries += 1,
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(read(&mut client, "full").await.unwrap(), known);
    assert!(server.stop());
    let mut server = Server::start(&data, &flags).unwrap();
    let mut client = server.client().await.unwrap();
    assert_eq!(read(&mut client, "full").await.unwrap(), known, "and after a restart");
    assert!(server.stop());
    assert!(fs::read_dir(&data).unwrap().count() > 0);
}
