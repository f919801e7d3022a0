//! How much a fold asks of a store at once: additive increase, multiplicative decrease, as TCP asks of a network
//! (RFC 5681).
//!
//! A store that is asked for more than it does within its own time limit answers nothing and has still done the work:
//! whoever only repeats the same keeps it there forever, long after the crowd that brought it there has left.

/// Rows that may be under way at a time.
#[derive(Debug)]
pub(crate) struct Allowance {
    rows: usize,
    most: usize,
    /// Writes begun so far.
    begun: u64,
    /// Writes begun before this one say nothing of the allowance as it is now.
    judged_from: u64,
}

/// Names a write to the [`Allowance`] under which it began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun(u64);

impl Allowance {
    /// Begins with `most`, and never asks for more.
    pub(crate) fn new(most: usize) -> Self {
        let most = most.max(1);
        Allowance { rows: most, most, begun: 0, judged_from: 0 }
    }

    /// How many rows may be begun beside those under way. One may always be, if none is.
    pub(crate) fn room(&self, under_way: usize) -> usize {
        self.rows.saturating_sub(under_way)
    }

    /// A write begins.
    pub(crate) fn begin(&mut self) -> Begun {
        self.begun += 1;
        Begun(self.begun)
    }

    /// A write was confirmed: there is room for some more.
    pub(crate) fn confirmed(&mut self) {
        self.rows = (self.rows + 1 + self.rows / 8).min(self.most);
    }

    /// A write was refused, or not answered in time: half as much from now on. Those that were under way together count
    /// as one.
    pub(crate) fn failed(&mut self, write: Begun) {
        if write.0 >= self.judged_from {
            self.rows = (self.rows / 2).max(1);
            self.judged_from = self.begun + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_together_halves_once_and_one_row_is_always_allowed() {
        let mut allowance = Allowance::new(64);
        let (one, two) = (allowance.begin(), allowance.begin());
        allowance.failed(one);
        allowance.failed(two);
        assert_eq!((allowance.room(0), allowance.room(30), allowance.room(64)), (32, 2, 0));
        for _ in 0..10 {
            let write = allowance.begin();
            allowance.failed(write);
        }
        assert_eq!(allowance.room(0), 1);
    }

    #[test]
    fn it_comes_back_to_the_most_and_stays_there() {
        let mut allowance = Allowance::new(512);
        for _ in 0..20 {
            let write = allowance.begin();
            allowance.failed(write);
        }
        let confirmed = (1..).find(|_| {
            allowance.confirmed();
            allowance.room(0) == 512
        });
        assert!(confirmed.is_some_and(|count| count < 60), "{confirmed:?}");
        allowance.confirmed();
        assert_eq!(allowance.room(0), 512);
    }
}
