//! stub
use stormkeep_core::event::RecordedEvent;
/// stub
pub struct Filter;
impl Filter {
    /// stub
    pub fn matches(&self, _: &RecordedEvent) -> bool {
        true
    }
}
