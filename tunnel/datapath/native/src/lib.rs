//! The compiled twin of tunnel's Python datapath.
//!
//! `tunnel/datapath/interface.py` states what every function here does; the Python reference is the
//! oracle of its tests. The core is plain Rust over byte slices. `python`, behind the feature of
//! that name, is the extension module around it.

pub mod apart;
pub mod batches;
pub mod checksum;
pub mod coalesce;
pub mod drops;
pub mod ethernet;
pub mod handshake;
#[cfg(feature = "python")]
mod handshake_python;
pub mod ip;
pub mod ipsec_mb;
pub mod ledger;
pub mod limits;
pub mod macs;
pub mod noise;
pub mod pump;
#[cfg(feature = "python")]
mod python;
#[cfg(feature = "python")]
mod python_pump;
pub mod replay;
pub mod session;
pub mod split;
pub mod transport_key;
pub mod virtio;
