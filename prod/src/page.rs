//! How much to read at once: a reader holds about one page of bytes, however large its events are.

/// Bytes of events that a reader should hold at once.
const PAGE_BYTES: usize = 1024 * 1024;
/// Events of a first page, before anything is known of their size: at 1 MiB each, the most that a reader holds.
pub(crate) const PAGE_EVENTS_FIRST: u32 = 32;
/// Events of one page at the most.
const PAGE_EVENTS_MAX: u32 = 1024;

/// Sets the size of the next page by the last one.
#[derive(Debug, Clone)]
pub struct Pager {
    limit: u32,
}

impl Pager {
    /// Begins with this many events.
    pub fn new(first: u32) -> Self {
        Pager { limit: first.clamp(1, PAGE_EVENTS_MAX) }
    }

    /// How many events to ask for.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// A page had `count` events of `bytes` bytes in all. The next one is at most four times as long.
    pub fn read(&mut self, bytes: usize, count: usize) {
        if count == 0 {
            return;
        }
        let fits = PAGE_BYTES / (bytes / count).max(1);
        let fits = u32::try_from(fits).unwrap_or(PAGE_EVENTS_MAX);
        self.limit = fits.clamp(1, PAGE_EVENTS_MAX).min(self.limit.saturating_mul(4));
    }
}

impl Default for Pager {
    fn default() -> Self {
        Pager::new(PAGE_EVENTS_FIRST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_holds_about_as_many_bytes_whatever_the_events() {
        let mut pager = Pager::default();
        assert_eq!(pager.limit(), 32);
        pager.read(32 * 256, 32);
        assert_eq!(pager.limit(), 128, "four times as many at the most");
        for _ in 0..5 {
            pager.read(1024 * 256, 1024);
        }
        assert_eq!(pager.limit(), 1024);
        pager.read(1024 * 1024 * 1024, 1024);
        assert_eq!(pager.limit(), 1);
        pager.read(0, 0);
        assert_eq!(pager.limit(), 1);
        pager.read(0, 1);
        assert_eq!(pager.limit(), 4);
    }
}
