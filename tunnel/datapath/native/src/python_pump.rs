//! `Pump` of the extension module; `tunnel/datapath/pump.py` documents it.
//!
//! Its buffers are its own, and the interpreter runs on while it works. Only what it gives back is
//! copied.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use nix::libc;
use nix::sys::socket::ControlMessageOwned;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyList, PyMemoryView, PyTuple, PyType};

use crate::coalesce::Offload;
use crate::pump::socket::{Descriptors, Origin, Received};
use crate::pump::{self, How, PeerId, Stop, Unanswered};
use crate::python::{Session, drops_dict, write};

/// The types of the results.
struct Types {
    new: Py<PyAny>,
    sealing: Py<PyType>,
    unsent: Py<PyType>,
    outgoing: Py<PyType>,
    opening: Py<PyType>,
    refused: Py<PyType>,
    datagrams: Py<PyType>,
    frames: Py<PyType>,
    incoming: Py<PyType>,
}

static TYPES: PyOnceLock<Types> = PyOnceLock::new();

impl Types {
    fn get(py: Python<'_>) -> PyResult<&'static Types> {
        TYPES.get_or_try_init(py, || {
            let module = py.import("tunnel.datapath.pump")?;
            let class = |name| -> PyResult<Py<PyType>> {
                Ok(module.getattr(name)?.cast_into::<PyType>()?.unbind())
            };
            Ok(Types {
                new: py.get_type::<PyTuple>().getattr("__new__")?.unbind(),
                sealing: class("Sealing")?,
                unsent: class("Unsent")?,
                outgoing: class("Outgoing")?,
                opening: class("Opening")?,
                refused: class("Refused")?,
                datagrams: class("Datagrams")?,
                frames: class("Frames")?,
                incoming: class("Incoming")?,
            })
        })
    }

    fn make<'py>(
        &self,
        py: Python<'py>,
        class: &Py<PyType>,
        fields: impl IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error = PyErr>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let fields = fields.into_pyobject(py)?;
        self.new.bind(py).call1((class.bind(py), fields))
    }
}

/// Everything between a wake-up and the next sleep that needs no decision.
#[pyclass(module = "tunnel.datapath._native")]
pub struct Pump {
    core: pump::Pump,
    descriptors: Descriptors,
}

#[pymethods]
impl Pump {
    #[new]
    fn new() -> Self {
        Pump {
            core: pump::Pump::default(),
            descriptors: Descriptors {
                tun: -1,
                v4: -1,
                v6: -1,
            },
        }
    }

    fn set_descriptors(&mut self, tun: i32, v4: i32, v6: i32) {
        self.descriptors = Descriptors { tun, v4, v6 };
    }

    #[pyo3(signature = (key))]
    fn set_mac1_key(&mut self, key: Option<[u8; 32]>) {
        self.core.set_mac1_key(key);
    }

    fn teach_address(&mut self, address: &[u8], peer: PeerId) -> PyResult<()> {
        self.core.teach_address(ip_address(address)?, peer);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the interface has them")]
    fn teach_way(
        &mut self,
        peer: PeerId,
        session: &Bound<'_, Session>,
        address: &[u8],
        port: u16,
        scope_id: u32,
        source: Option<(Vec<u8>, u32)>,
        gso: bool,
        until: f64,
    ) -> PyResult<()> {
        let to = origin(address, port, scope_id, source)?;
        let session = session.get().shared();
        self.core.teach_way(peer, session, to, gso, until);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the interface has them")]
    fn teach_receiver(
        &mut self,
        peer: PeerId,
        session: &Bound<'_, Session>,
        address: &[u8],
        port: u16,
        scope_id: u32,
        source: Option<(Vec<u8>, u32)>,
        until: f64,
    ) -> PyResult<()> {
        let from = origin(address, port, scope_id, source)?;
        let session = session.get().shared();
        self.core.teach_receiver(peer, session, from, until);
        Ok(())
    }

    fn set_indices(&mut self, peer: PeerId, indices: Vec<u32>) {
        self.core.set_indices(peer, indices);
    }

    fn forget_addresses(&mut self) {
        self.core.forget_addresses();
    }

    fn forget(&mut self) {
        self.core.forget();
    }

    fn send<'py>(
        &mut self,
        py: Python<'py>,
        now: f64,
        mtu: usize,
        most: usize,
        budget: usize,
        arena: &Bound<'py, PyByteArray>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (core, descriptors) = (&mut self.core, self.descriptors);
        let sent = py.detach(|| core.send(descriptors, now, mtu, most, budget));
        outgoing(py, core, &sent, arena)
    }

    #[expect(clippy::too_many_arguments, reason = "the interface has them")]
    fn receive<'py>(
        &mut self,
        py: Python<'py>,
        v6: bool,
        now: f64,
        mtu: usize,
        budget: usize,
        coalesce: u8,
        lone: bool,
        look: bool,
        may_answer: bool,
        show_forged: bool,
        unanswered: &Bound<'py, PyAny>,
        gather: bool,
        buffer: &Bound<'py, PyByteArray>,
        out: &Bound<'py, PyByteArray>,
        arena: &Bound<'py, PyByteArray>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (core, descriptors) = (&mut self.core, self.descriptors);
        let how = How {
            descriptors,
            v6,
            now,
            budget,
            offload: Offload(coalesce),
            mtu,
            lone,
            look,
            may_answer,
            show_forged,
            unanswered: unanswered_of(unanswered)?,
            gather,
        };
        let incoming = py.detach(|| core.receive(how));
        let types = Types::get(py)?;
        let opened = PyList::empty(py);
        for one in &incoming.opened {
            let fields = (one.index, one.packets, one.keepalives, one.bytes);
            opened.append(types.make(py, &types.opening, fields)?)?;
        }
        let stop = match &incoming.stop {
            None => py.None().into_bound(py),
            Some(Stop::Error(error)) => (*error as i32).into_pyobject(py)?.into_any(),
            Some(Stop::Datagrams(received)) => {
                write(
                    &core.received()[..received.length],
                    &PyMemoryView::from(buffer)?,
                    0,
                )?;
                datagrams(py, types, received)?
            }
            Some(Stop::Frames(index, spans)) => {
                if let Some(&(_, end)) = spans.last() {
                    write(&core.sealed()[..end], &PyMemoryView::from(out)?, 0)?;
                }
                types.make(py, &types.frames, (*index, PyList::new(py, spans)?))?
            }
        };
        let initiations = PyList::empty(py);
        for one in &incoming.initiations {
            let fields = (
                PyBytes::new(py, &one.message),
                PyTuple::new(py, control_messages(py, &one.messages)?)?,
                sockaddr(py, Some(one.origin.remote))?,
            );
            initiations.append(fields)?;
        }
        let refused = refused(py, types, &incoming)?;
        let answer = match &incoming.answer {
            None => None,
            Some(answer) => Some(outgoing(py, core, answer, arena)?),
        };
        let fields = (
            incoming.batches,
            incoming.cost,
            opened,
            initiations,
            refused,
            stop,
            incoming.is_alone,
            answer,
        );
        types.make(py, &types.incoming, fields)
    }
}

/// Who is sent no cookie: one, of this address and port; all, or none, as a bool.
fn unanswered_of(value: &Bound<'_, PyAny>) -> PyResult<Unanswered> {
    if let Ok(all) = value.cast::<PyBool>() {
        return Ok(if all.is_true() {
            Unanswered::All
        } else {
            Unanswered::No
        });
    }
    let (address, port): (Vec<u8>, u16) = value.extract()?;
    let one = SocketAddr::from((ip_address(&address)?, port));
    Ok(Unanswered::One(one))
}

fn refused<'py>(
    py: Python<'py>,
    types: &Types,
    incoming: &pump::Incoming,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let drops = drops_dict(py, &incoming.drops)?;
    let forged = incoming.forged;
    let counted = [
        incoming.unknown,
        forged.bare,
        forged.rest,
        incoming.unanswered,
        incoming.malformed,
        incoming.congested,
        incoming.busy,
    ];
    if drops.is_empty() && counted == [0; 7] {
        return Ok(None);
    }
    let fields = (
        drops,
        incoming.unknown,
        (forged.bare, forged.rest),
        incoming.unanswered,
        incoming.malformed,
        incoming.congested,
        incoming.busy,
    );
    types.make(py, &types.refused, fields).map(Some)
}

fn outgoing<'py>(
    py: Python<'py>,
    core: &pump::Pump,
    sent: &pump::Outgoing,
    arena: &Bound<'py, PyByteArray>,
) -> PyResult<Bound<'py, PyAny>> {
    let types = Types::get(py)?;
    let sealed = PyList::empty(py);
    for one in &sent.sealed {
        let fields = (one.peer, one.packets, one.bytes);
        sealed.append(types.make(py, &types.sealing, fields)?)?;
    }
    let unsent = PyList::empty(py);
    if let Some(rest) = &sent.unsent {
        for batch in &rest.batches {
            let data = PyBytes::new(py, &core.sealed()[batch.start..batch.end]);
            let fields = (rest.peer, data, batch.stride, batch.ecn);
            unsent.append(types.make(py, &types.unsent, fields)?)?;
        }
    }
    // They lie one behind the other, as they were read.
    let first = sent.left.first().map_or(0, |&(start, _)| start);
    let left = PyList::empty(py);
    for &(start, end) in &sent.left {
        left.append((start - first, end - first))?;
    }
    if let Some(&(_, end)) = sent.left.last() {
        write(&core.arena()[first..end], &PyMemoryView::from(arena)?, 0)?;
    }
    let drops = drops_dict(py, &sent.drops)?;
    let fields = (
        sent.frames,
        sent.cost,
        sealed,
        (!drops.is_empty()).then_some(drops),
        unsent,
        left,
        sent.error.map_or(0, |error| error as i32),
        sent.is_empty,
    );
    types.make(py, &types.outgoing, fields)
}

/// A batch as `socket.recvmsg_into` gives it.
fn datagrams<'py>(
    py: Python<'py>,
    types: &Types,
    received: &Received,
) -> PyResult<Bound<'py, PyAny>> {
    let messages = PyList::new(py, control_messages(py, &received.messages)?)?;
    let sockaddr = sockaddr(py, received.origin.map(|origin| origin.remote))?;
    let fields = (received.length, messages, received.flags, sockaddr);
    types.make(py, &types.datagrams, fields)
}

/// Level, type and data of control messages.
fn control_messages<'py>(
    py: Python<'py>,
    messages: &[ControlMessageOwned],
) -> PyResult<Vec<Bound<'py, PyTuple>>> {
    let mut given = Vec::with_capacity(messages.len());
    for message in messages {
        let (level, kind, data) = match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                let mut data = info.ipi_ifindex.to_ne_bytes().to_vec();
                data.extend(info.ipi_spec_dst.s_addr.to_ne_bytes());
                data.extend(info.ipi_addr.s_addr.to_ne_bytes());
                (libc::IPPROTO_IP, libc::IP_PKTINFO, data)
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                let mut data = info.ipi6_addr.s6_addr.to_vec();
                data.extend(info.ipi6_ifindex.to_ne_bytes());
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, data)
            }
            ControlMessageOwned::UdpGroSegments(stride) => {
                let data = stride.to_ne_bytes().to_vec();
                (libc::SOL_UDP, libc::UDP_GRO, data)
            }
            ControlMessageOwned::Ipv4Tos(tos) => (libc::IPPROTO_IP, libc::IP_TOS, vec![*tos]),
            ControlMessageOwned::Ipv6TClass(class) => {
                let data = class.to_ne_bytes().to_vec();
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, data)
            }
            _ => continue,
        };
        given.push((level, kind, PyBytes::new(py, &data)).into_pyobject(py)?);
    }
    Ok(given)
}

/// Python's socket address; `None` is nowhere, which cannot be answered.
fn sockaddr(py: Python<'_>, remote: Option<SocketAddr>) -> PyResult<Bound<'_, PyTuple>> {
    match remote {
        Some(SocketAddr::V4(v4)) => (v4.ip().to_string(), v4.port()).into_pyobject(py),
        Some(SocketAddr::V6(v6)) => {
            (v6.ip().to_string(), v6.port(), 0, v6.scope_id()).into_pyobject(py)
        }
        None => ("0.0.0.0", 0).into_pyobject(py),
    }
}

fn ip_address(packed: &[u8]) -> PyResult<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(packed) {
        Ok(v4.into())
    } else if let Ok(v6) = <[u8; 16]>::try_from(packed) {
        Ok(v6.into())
    } else {
        Err(PyValueError::new_err("an address has 4 or 16 bytes"))
    }
}

fn origin(
    address: &[u8],
    port: u16,
    scope_id: u32,
    source: Option<(Vec<u8>, u32)>,
) -> PyResult<Origin> {
    let remote = match ip_address(address)? {
        IpAddr::V4(v4) => SocketAddr::from((v4, port)),
        IpAddr::V6(v6) => SocketAddrV6::new(v6, port, 0, scope_id).into(),
    };
    let local = match source {
        None => None,
        Some((address, ifindex)) => Some((ip_address(&address)?, ifindex)),
    };
    Ok(Origin { remote, local })
}
