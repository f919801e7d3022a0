//! What event processing keeps: documents that are changed by compare-and-set alone, and how far groups have got.
//!
//! A document holds no null, as a row of epochs does not. Progress is one cell, written at its [`Row::timestamp`]: of two
//! of the same time the larger value wins, which is the one that has ended.
//!
//! [`Row::timestamp`]: stormkeep_core::env::Row::timestamp

use scylla::{response::query_result::QueryRowsResult, value::CqlValue};
use stormkeep_core::{
    env::{Document, DocumentKey, Progress, Rewritten, StoreError},
    group::GroupNumber,
    shard::ShardId,
};

use super::{
    CassandraStore,
    applied::Applied,
    failure::Asked,
    rows::{bigint, decode_progress, unsigned},
};

impl CassandraStore {
    pub(super) async fn read_documents(
        &self,
        keys: &[DocumentKey],
    ) -> Result<Vec<Document>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let here = self.link.get().await?;
        let names: Vec<String> = keys.iter().map(ToString::to_string).collect();
        let answer = self.rows(&here, &here.statements.documents, (&names,), Asked::Plain).await?;
        let wrong = |error: &dyn std::fmt::Display| self.damaged("a row of documents", error);
        let rows = answer.rows::<(String, i64, Vec<u8>)>().map_err(|error| wrong(&error))?;
        let rows: Vec<_> = rows.collect::<Result<_, _>>().map_err(|error| wrong(&error))?;
        let document = |(key, name): (&DocumentKey, &String)| {
            let Some((_, version, body)) = rows.iter().find(|(found, ..)| found == name) else {
                return Ok(Document::blank(*key));
            };
            let version = unsigned(*version).map_err(|error| wrong(&error))?;
            Ok(Document { key: *key, version, body: body.clone().into() })
        };
        keys.iter().zip(&names).map(document).collect()
    }

    pub(super) async fn rewrite_document(
        &self,
        from: Document,
        to: Document,
    ) -> Result<Rewritten, StoreError> {
        let here = self.link.get().await?;
        let of = &here.statements;
        let (name, body) = (to.key.to_string(), to.body.to_vec());
        let answer = if from.version == 0 {
            let values = (name, bigint(to.version), body);
            self.rows(&here, &of.rewrite_blank, values, Asked::Swap).await?
        } else {
            let expected = (bigint(from.version), from.body.to_vec());
            let values = (bigint(to.version), body, name, expected.0, expected.1);
            self.rows(&here, &of.rewrite, values, Asked::Swap).await?
        };
        match self.rewritten(from.key, &answer)? {
            // It was this one, asked before.
            Rewritten::Lost(found) if found == to => Ok(Rewritten::Done),
            outcome => Ok(outcome),
        }
    }

    fn rewritten(
        &self,
        key: DocumentKey,
        answer: &QueryRowsResult,
    ) -> Result<Rewritten, StoreError> {
        // Whatever it was that cannot be read, the change may be done.
        let unreadable = |what: &str| {
            self.damaged("the answer to a change of a document", what);
            StoreError::Unknown
        };
        let found = match Applied::of(answer).map_err(|what| unreadable(&what))? {
            Applied::Done => return Ok(Rewritten::Done),
            Applied::Lost(found) => found,
        };
        match (
            found.get("version").and_then(CqlValue::as_bigint),
            found.get("body").and_then(CqlValue::as_blob),
        ) {
            (Some(version), Some(body)) => {
                let version = unsigned(version).map_err(|error| unreadable(&error.to_string()))?;
                Ok(Rewritten::Lost(Document { key, version, body: body.clone().into() }))
            }
            (None, None) => Ok(Rewritten::Lost(Document::blank(key))),
            _ => Err(unreadable("it has half a document")),
        }
    }

    pub(super) async fn read_progress(
        &self,
        shard: ShardId,
    ) -> Result<Vec<(GroupNumber, Progress)>, StoreError> {
        let here = self.link.get().await?;
        let key = (i64::from(shard.0),);
        let answer = self.rows(&here, &here.statements.progress, key, Asked::Plain).await?;
        let wrong = |error: &dyn std::fmt::Display| self.damaged("a row of progress", error);
        let rows = answer.rows::<(i64, Vec<u8>)>().map_err(|error| wrong(&error))?;
        let progress = |row: Result<(i64, Vec<u8>), _>| {
            let (group, bytes) = row.map_err(|error| wrong(&error))?;
            let group = GroupNumber(unsigned(group).map_err(|error| wrong(&error))?);
            Ok((group, decode_progress(&bytes).map_err(|error| wrong(&error))?))
        };
        rows.map(progress).collect()
    }
}
