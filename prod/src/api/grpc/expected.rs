//! What is demanded of a stream, in each of the five forms that the protocol has for it.

use stormkeep_core::append::Expected;

use super::{
    proto::event_store::client::streams::{
        append_req, batch_append_req, batch_append_resp, delete_req, tombstone_req,
    },
    trouble::Trouble,
};

/// A demand as it came.
pub(crate) trait Demand {
    /// The demand, if it can be.
    fn expected(self) -> Result<Expected, Trouble>;
}

impl<D: Demand> Demand for Option<D> {
    fn expected(self) -> Result<Expected, Trouble> {
        match self {
            Some(demand) => demand.expected(),
            None => Err(Trouble::invalid("options.expected_stream_revision", "missing")),
        }
    }
}

/// The protocol's revisions are signed.
fn exactly(revision: u64) -> Result<Expected, Trouble> {
    if revision > i64::MAX as u64 {
        let why = format!("{revision} is no revision; at most {}", i64::MAX);
        return Err(Trouble::invalid("options.expected_stream_revision", why));
    }
    Ok(Expected::Exactly(revision))
}

macro_rules! demand {
    ($($kind:path),*) => {$(
        impl Demand for $kind {
            fn expected(self) -> Result<Expected, Trouble> {
                use $kind as It;
                match self {
                    It::Revision(revision) => exactly(revision),
                    It::NoStream(_) => Ok(Expected::NoStream),
                    It::Any(_) => Ok(Expected::Any),
                    It::StreamExists(_) => Ok(Expected::StreamExists),
                }
            }
        }
    )*};
}

demand!(
    append_req::options::ExpectedStreamRevision,
    delete_req::options::ExpectedStreamRevision,
    tombstone_req::options::ExpectedStreamRevision
);

impl Demand for batch_append_req::options::ExpectedStreamPosition {
    fn expected(self) -> Result<Expected, Trouble> {
        use batch_append_req::options::ExpectedStreamPosition as It;
        match self {
            It::StreamPosition(revision) => exactly(revision),
            It::NoStream(()) => Ok(Expected::NoStream),
            It::Any(()) => Ok(Expected::Any),
            It::StreamExists(()) => Ok(Expected::StreamExists),
        }
    }
}

/// A demand as the answer to a batch repeats it.
pub(crate) fn repeated(expected: Expected) -> batch_append_resp::ExpectedStreamPosition {
    use batch_append_resp::ExpectedStreamPosition as It;
    match expected {
        Expected::Exactly(revision) => It::StreamPosition(revision),
        Expected::NoStream => It::NoStream(()),
        Expected::Any => It::Any(()),
        Expected::StreamExists => It::StreamExists(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::grpc::proto::event_store::client::Empty;

    #[test]
    fn every_demand_is_understood_in_every_form() {
        use append_req::options::ExpectedStreamRevision as Append;
        use batch_append_req::options::ExpectedStreamPosition as Batch;
        use delete_req::options::ExpectedStreamRevision as Delete;
        assert_eq!(Some(Append::Revision(7)).expected(), Ok(Expected::Exactly(7)));
        assert_eq!(Some(Append::NoStream(Empty {})).expected(), Ok(Expected::NoStream));
        assert_eq!(Some(Delete::Any(Empty {})).expected(), Ok(Expected::Any));
        assert_eq!(Some(Delete::StreamExists(Empty {})).expected(), Ok(Expected::StreamExists));
        assert_eq!(Some(Batch::StreamPosition(7)).expected(), Ok(Expected::Exactly(7)));
        assert_eq!(Some(Batch::NoStream(())).expected(), Ok(Expected::NoStream));
        for bad in [None, Some(Append::Revision(1 << 63))] {
            let Err(Trouble::Invalid(why)) = bad.expected() else { panic!("it is taken") };
            assert!(why.starts_with("options.expected_stream_revision: "), "{why}");
        }
    }
}
