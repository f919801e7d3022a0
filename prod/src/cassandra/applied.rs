//! The answer to a compare-and-set: `[applied]`, and how the row is if it was not. Which columns come with it differs:
//! Cassandra answers those of the condition or all of them, and none if there is no row; ScyllaDB answers all at all times.

use scylla::{
    response::query_result::QueryRowsResult,
    value::{CqlValue, Row},
};

/// How a compare-and-set ended.
pub(super) enum Applied<'a> {
    /// The row is as asked.
    Done,
    /// It was not as expected.
    Lost(Found<'a>),
}

/// The row as it was found.
pub(super) struct Found<'a> {
    answer: &'a QueryRowsResult,
    row: Row,
}

impl Applied<'_> {
    /// Reads an answer; `Err`: what is wrong with it, and then it may be done.
    pub(super) fn of(answer: &QueryRowsResult) -> Result<Applied<'_>, String> {
        let row = answer.first_row::<Row>().map_err(|error| error.to_string())?;
        let found = Found { answer, row };
        match found.get("[applied]").and_then(CqlValue::as_boolean) {
            Some(true) => Ok(Applied::Done),
            Some(false) => Ok(Applied::Lost(found)),
            None => Err("it does not say whether it is done".to_owned()),
        }
    }
}

impl Found<'_> {
    /// A column by its name; `None`: it did not come, or is null.
    pub(super) fn get(&self, name: &str) -> Option<&CqlValue> {
        let (at, _) = self.answer.column_specs().get_by_name(name)?;
        self.row.columns.get(at)?.as_ref()
    }
}
