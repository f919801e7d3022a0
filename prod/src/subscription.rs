//! Groups that the configuration wants: tables `[[subscription]]` of the file.
//!
//! A server that starts compares each with what is there: it makes one that is missing, and gives one that differs the settings
//! and the target of the file; the group goes on where it is. What the file does not name is left alone, and nothing is ever
//! deleted. Any number of nodes may do so at once with the same file: whoever comes second finds nothing to do. With different
//! files the node that started last wins.

mod entry;

use std::time::Duration;

use stormkeep_core::{
    consume::{Manage, ManageError, NewGroup},
    env::Env,
};
use tracing::{debug, error, info, warn};

pub use entry::{InvalidEntry, groups};

use crate::service::{NotReady, Service};

/// How long one question to the store may take.
const ASK_WITHIN: Duration = Duration::from_secs(10);
/// How long to wait before it is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What was found, and done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It was missing, and is made.
    Made,
    /// It differed, and is as wanted.
    Changed,
    /// It is as wanted.
    Same,
}

/// Sees to it, beside everything else, that these groups are there. Call it within a tokio runtime.
pub fn keep<E: Env>(service: &Service<E>, wanted: Vec<NewGroup>) {
    if wanted.is_empty() {
        return;
    }
    let service = service.clone();
    tokio::spawn(async move {
        for group in wanted {
            until_kept(&service, &group).await;
        }
    });
}

async fn until_kept<E: Env>(service: &Service<E>, wanted: &NewGroup) {
    let id = &wanted.id;
    loop {
        match keep_one(service, wanted).await {
            Ok(Kept::Same) => return debug!(group = %id, "subscription: as the file says"),
            Ok(Kept::Made) => return info!(group = %id, "subscription: made, as the file says"),
            Ok(Kept::Changed) => {
                return info!(group = %id, "subscription: changed, as the file says");
            }
            // Another node was faster.
            Err(ManageError::Exists(_) | ManageError::NoSuchGroup(_)) => {}
            Err(ManageError::Unknown) => {
                if service.readiness() == Err(NotReady::Draining) {
                    return;
                }
                tokio::time::sleep(RETRY_AFTER).await;
            }
            Err(error) => {
                return error!(group = %id, %error, "subscription: it is not as the file says");
            }
        }
    }
}

/// Compares a group with what is wanted, and makes or changes it.
pub async fn keep_one<E: Env>(
    service: &Service<E>,
    wanted: &NewGroup,
) -> Result<Kept, ManageError> {
    let groups = service.groups(ASK_WITHIN).await?;
    let Some(there) = groups.iter().find(|group| group.id == wanted.id) else {
        service.manage(Manage::Create(wanted.clone()), ASK_WITHIN).await?;
        return Ok(Kept::Made);
    };
    if there.filter != wanted.filter {
        warn!(group = %wanted.id, "subscription: its filter is not as the file says, and a filter cannot be changed: delete the group to have it made anew");
    }
    if there.settings == wanted.settings && there.target == wanted.target {
        return Ok(Kept::Same);
    }
    let NewGroup { id, settings, target, .. } = wanted.clone();
    service.manage(Manage::Update { id, settings, target }, ASK_WITHIN).await?;
    Ok(Kept::Changed)
}
