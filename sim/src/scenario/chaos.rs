use crate::plan::Plan;
pub(super) fn chaos(_seed: u64) -> Plan {
    todo!()
}
pub(super) fn reshard(_seed: u64) -> Plan {
    todo!()
}
pub(super) fn calm(_seed: u64) -> Plan {
    todo!()
}
