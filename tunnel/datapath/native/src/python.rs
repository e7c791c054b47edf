//! The extension module `tunnel.datapath._native`: `Session`, `check_mac1` and `check_mac2` of `interface.py`.
//!
//! Bytes are copied from the caller's buffers into scratch memory of this thread and back, with the
//! interpreter locked; that is cheap beside the cipher, and the only way to let go of the lock in
//! between without trusting the caller to leave its buffers alone. Results are the named tuples of
//! `interface.py`.

use std::cell::RefCell;
use std::sync::{Arc, Mutex};

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyMemoryView, PySlice, PyTuple, PyType};

use crate::coalesce::{Coalescer, Offload};
use crate::drops::Drops;
use crate::ledger::{self, Place};
use crate::limits::{REJECT_AFTER_MESSAGES, SEND_BLOCK};
use crate::macs;
use crate::pump::{SharedSession, lock};
use crate::python_pump::Pump;
use crate::session::{self, Exhausted};
use crate::transport_key;

/// With fewer bytes to work on than this, letting other threads run would cost more than it gives.
const DETACH_FROM: usize = 16_384;
const SPAN: &str = "a span lies outside the frames' buffer";

/// Memory that is used again by the next call in this thread.
#[derive(Default)]
struct Scratch {
    input: Vec<u8>,
    output: Vec<u8>,
    spans: Vec<(usize, usize)>,
    frames: Coalescer,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The types of the results, imported when they are first needed.
struct Types {
    new: Py<PyAny>,
    batch: Py<PyType>,
    sealed: Py<PyType>,
    opened: Py<PyType>,
    exhausted: Py<PyType>,
}

static TYPES: PyOnceLock<Types> = PyOnceLock::new();

impl Types {
    fn get(py: Python<'_>) -> PyResult<&'static Types> {
        TYPES.get_or_try_init(py, || {
            let interface = py.import("tunnel.datapath.interface")?;
            let class = |name| -> PyResult<Py<PyType>> {
                Ok(interface.getattr(name)?.cast_into::<PyType>()?.unbind())
            };
            let errors = py.import("tunnel.datapath.errors")?;
            Ok(Types {
                // A named tuple's own __new__ is written in Python and only ends up here.
                new: py.get_type::<PyTuple>().getattr("__new__")?.unbind(),
                batch: class("Batch")?,
                sealed: class("Sealed")?,
                opened: class("Opened")?,
                exhausted: errors
                    .getattr("SessionExhausted")?
                    .cast_into::<PyType>()?
                    .unbind(),
            })
        })
    }

    fn make<'py>(
        &self,
        class: &Py<PyType>,
        fields: Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = fields.py();
        self.new.bind(py).call1((class.bind(py), fields))
    }

    fn exhausted(&self, py: Python<'_>) -> PyErr {
        let message = "the session reached its message limit";
        PyErr::from_type(self.exhausted.bind(py).clone(), message)
    }
}

/// A whole number that is not negative; ValueError if it is, or if it is out of range.
pub fn number<'py, T>(value: &Bound<'py, PyAny>, message: &'static str) -> PyResult<T>
where
    T: for<'a> FromPyObject<'a, 'py, Error = PyErr>,
{
    value.extract::<T>().map_err(|error| {
        if error.is_instance_of::<PyOverflowError>(value.py()) {
            PyValueError::new_err(message)
        } else {
            error
        }
    })
}

/// The part ``[start:end]`` of what `view` shows, for copying. Positions must be inside.
fn part(view: &Bound<'_, PyMemoryView>, start: usize, end: usize) -> PyResult<PyBuffer<u8>> {
    // Not by `PySlice::new`: it never lets go of the integers that it makes (PyO3 0.30.1), which
    // are new ones of 32 bytes each above 256.
    let slice = view.py().get_type::<PySlice>().call1((start, end))?;
    PyBuffer::get(&view.get_item(slice)?)
}

/// Copy ``view[start:end]`` to the start of `into`, which only ever grows.
fn read(
    view: &Bound<'_, PyMemoryView>,
    start: usize,
    end: usize,
    into: &mut Vec<u8>,
    at: usize,
) -> PyResult<()> {
    let length = end - start;
    if into.len() < at + length {
        into.resize(at + length, 0);
    }
    if length > 0 {
        part(view, start, end)?.copy_to_slice(view.py(), &mut into[at..at + length])?;
    }
    Ok(())
}

/// Copy `from` to ``view[start:]``.
pub fn write(from: &[u8], view: &Bound<'_, PyMemoryView>, start: usize) -> PyResult<()> {
    if !from.is_empty() {
        part(view, start, start + from.len())?.copy_from_slice(view.py(), from)?;
    }
    Ok(())
}

fn span(item: &Bound<'_, PyAny>, limit: usize) -> PyResult<(usize, usize)> {
    let pair = item.cast::<PyTuple>()?;
    if pair.len() != 2 {
        return Err(PyValueError::new_err("a span is a pair (start, end)"));
    }
    let start = number(&pair.get_item(0)?, SPAN)?;
    let end = number(&pair.get_item(1)?, SPAN)?;
    if start > end || end > limit {
        return Err(PyValueError::new_err(SPAN));
    }
    Ok((start, end))
}

/// Copy the frames into the scratch memory, and note where they are now. Returns their bytes.
fn gather(
    view: &Bound<'_, PyMemoryView>,
    spans: &Bound<'_, PyAny>,
    scratch: &mut Scratch,
) -> PyResult<usize> {
    let limit = view.len()?;
    let places = &mut scratch.spans;
    if let Ok(list) = spans.cast::<PyList>() {
        for item in list.iter() {
            places.push(span(&item, limit)?);
        }
    } else {
        for item in spans.try_iter()? {
            places.push(span(&item?, limit)?);
        }
    }
    let bytes: usize = places.iter().map(|(start, end)| end - start).sum();
    let first = places.iter().map(|&(start, _)| start).min().unwrap_or(0);
    let last = places.iter().map(|&(_, end)| end).max().unwrap_or(0);
    // Frames that lie together are fetched with one copy, gaps included.
    if last - first <= 2 * bytes + 4096 {
        read(view, first, last, &mut scratch.input, 0)?;
        for (start, end) in places {
            (*start, *end) = (*start - first, *end - first);
        }
    } else {
        let mut at = 0;
        for (start, end) in places {
            read(view, *start, *end, &mut scratch.input, at)?;
            (*start, *end) = (at, at + *end - *start);
            at = *end;
        }
    }
    Ok(bytes)
}

pub fn drops_dict<'py>(py: Python<'py>, drops: &Drops) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (reason, count) in drops.iter() {
        dict.set_item(reason.name(), count)?;
    }
    Ok(dict)
}

/// Run `work`, and let other threads run meanwhile if there is much to do.
fn run<T: Send>(py: Python<'_>, bytes: usize, work: impl FnOnce() -> T + Send) -> T {
    if bytes < DETACH_FROM {
        work()
    } else {
        py.detach(work)
    }
}

fn with_scratch<T>(work: impl FnOnce(&mut Scratch) -> PyResult<T>) -> PyResult<T> {
    // Taken out while it is used: should anything call back into Python and from there come here
    // again, it finds an empty one instead of a borrowed one.
    let mut scratch = SCRATCH.with(RefCell::take);
    scratch.spans.clear();
    scratch.frames.clear();
    let result = work(&mut scratch);
    SCRATCH.with(|place| place.replace(scratch));
    result
}

/// A file in which sessions note their counters.
#[pyclass(module = "tunnel.datapath._native", frozen)]
pub struct Ledger {
    core: Arc<ledger::Ledger>,
}

#[pymethods]
impl Ledger {
    #[new]
    #[pyo3(signature = (fd, block=None))]
    fn new(fd: i32, block: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        const BLOCK: &str = "a block has at least one counter";
        let block = match block {
            Some(block) => number(block, BLOCK)?,
            None => SEND_BLOCK,
        };
        if block == 0 {
            return Err(PyValueError::new_err(BLOCK));
        }
        let core = Arc::new(ledger::Ledger::open(fd, block)?);
        Ok(Ledger { core })
    }
}

/// One session's pair of transport keys with its counters and its replay window.
///
/// A call waits for another thread that is at work on the same session.
#[pyclass(module = "tunnel.datapath._native", frozen)]
pub struct Session {
    core: SharedSession,
}

impl Session {
    /// What the pump uses, too.
    pub fn shared(&self) -> SharedSession {
        self.core.clone()
    }
}

#[pymethods]
impl Session {
    #[new]
    #[pyo3(signature = (
        send_key, receive_key, local_index, remote_index, *, initial_counter=None, received=None,
        ledger=None, ethernet=false, short_tails=false
    ))]
    #[expect(clippy::too_many_arguments, reason = "the interface has them")]
    fn new(
        send_key: &[u8],
        receive_key: &[u8],
        local_index: &Bound<'_, PyAny>,
        remote_index: &Bound<'_, PyAny>,
        initial_counter: Option<&Bound<'_, PyAny>>,
        received: Option<&Bound<'_, PyAny>>,
        ledger: Option<(Bound<'_, Ledger>, u64, u64)>,
        ethernet: bool,
        short_tails: bool,
    ) -> PyResult<Self> {
        const INDEX: &str = "a receiver index has 32 bits";
        const COUNTER: &str = "the counter starts between 0 and the message limit";
        let local_index = number(local_index, INDEX)?;
        let remote_index = number(remote_index, INDEX)?;
        let counter = |given: Option<&Bound<'_, PyAny>>| {
            let counter = given.map_or(Ok(0), |value| number(value, COUNTER))?;
            if counter > REJECT_AFTER_MESSAGES {
                return Err(PyValueError::new_err(COUNTER));
            }
            Ok(counter)
        };
        let (received, counter) = (counter(received)?, counter(initial_counter)?);
        let mut core =
            session::Session::new(send_key, receive_key, local_index, remote_index, counter)
                .ok_or_else(|| PyValueError::new_err("a transport key has 32 bytes"))?
                .with_ethernet(ethernet)
                .with_short_tails(short_tails)
                .with_received(received);
        if let Some((ledger, offset, mask)) = ledger {
            core = core.with_ledger(Place::new(ledger.get().core.clone(), offset, mask));
        }
        let core = Arc::new(Mutex::new(core));
        Ok(Session { core })
    }

    #[getter]
    fn send_counter(&self) -> u64 {
        lock(&self.core).send_counter()
    }

    #[getter]
    fn local_index(&self) -> u32 {
        lock(&self.core).local_index()
    }

    #[getter]
    fn remote_index(&self) -> u32 {
        lock(&self.core).remote_index()
    }

    #[pyo3(signature = (frames, spans, mtu, out, start=0))]
    fn seal<'py>(
        &self,
        py: Python<'py>,
        frames: &Bound<'py, PyAny>,
        spans: &Bound<'py, PyAny>,
        mtu: i64,
        out: &Bound<'py, PyByteArray>,
        start: isize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let types = Types::get(py)?;
        let (frames, out) = (PyMemoryView::from(frames)?, PyMemoryView::from(out)?);
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let room = out
            .len()?
            .checked_sub(start)
            .ok_or_else(|| PyValueError::new_err("start lies outside the output buffer"))?;
        let mtu = usize::try_from(mtu).unwrap_or(0);
        with_scratch(|scratch| {
            let bytes = gather(&frames, spans, scratch)?;
            let Scratch {
                input,
                output,
                spans,
                ..
            } = scratch;
            let sealed = run(py, bytes, || {
                lock(&self.core).seal(input, spans, mtu, output, room, start)
            })
            .map_err(|Exhausted| types.exhausted(py))?;
            if let Some(last) = sealed.batches.last() {
                write(&output[..last.end - start], &out, start)?;
            }
            let batches = PyList::empty(py);
            for batch in &sealed.batches {
                let fields = (batch.start, batch.end, batch.stride, batch.ecn);
                batches.append(types.make(&types.batch, fields.into_pyobject(py)?)?)?;
            }
            let drops = drops_dict(py, &sealed.drops)?;
            let fields = (batches, sealed.consumed, sealed.packets, drops);
            types.make(&types.sealed, fields.into_pyobject(py)?)
        })
    }

    fn hand_over(&self) {
        lock(&self.core).hand_over();
    }

    fn forget_ledger(&self) {
        lock(&self.core).forget_ledger();
    }

    fn seal_keepalive<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        match lock(&self.core).seal_keepalive() {
            Ok(datagram) => Ok(PyBytes::new(py, &datagram)),
            Err(Exhausted) => Err(Types::get(py)?.exhausted(py)),
        }
    }

    #[pyo3(signature = (datagrams, start, end, stride, out, *, coalesce=15, outer_ecn=0))]
    #[expect(clippy::too_many_arguments, reason = "the interface has them")]
    fn open<'py>(
        &self,
        py: Python<'py>,
        datagrams: &Bound<'py, PyAny>,
        start: isize,
        end: isize,
        stride: isize,
        out: &Bound<'py, PyByteArray>,
        coalesce: u8,
        outer_ecn: u8,
    ) -> PyResult<Bound<'py, PyAny>> {
        let types = Types::get(py)?;
        let (datagrams, out) = (PyMemoryView::from(datagrams)?, PyMemoryView::from(out)?);
        let (start, end, stride) = batch_place(start, end, stride, datagrams.len()?)?;
        let length = end - start;
        if out.len()? < length {
            return Err(PyValueError::new_err(
                "the output buffer is shorter than the batch",
            ));
        }
        with_scratch(|scratch| {
            read(&datagrams, start, end, &mut scratch.input, 0)?;
            let Scratch {
                input,
                output,
                frames,
                ..
            } = scratch;
            let batch = &mut input[..length];
            let (opened, spans) = run(py, length, || {
                let opened =
                    lock(&self.core).open(batch, stride, Offload(coalesce), outer_ecn, frames);
                if output.len() < length {
                    output.resize(length, 0);
                }
                let spans = frames.write_frames(batch, |at, bytes| {
                    output[at..at + bytes.len()].copy_from_slice(bytes);
                });
                (opened, spans)
            });
            if let Some(&(_, end)) = spans.last() {
                write(&output[..end], &out, 0)?;
            }
            let drops = drops_dict(py, &opened.drops)?;
            let fields = (
                PyList::new(py, spans)?,
                opened.consumed,
                opened.packets,
                opened.keepalives,
                opened.wire_bytes,
                opened.payload_bytes,
                drops,
            );
            types.make(&types.opened, fields.into_pyobject(py)?)
        })
    }
}

/// Where a batch lies in a buffer of `limit` bytes, and how long its datagrams are.
fn batch_place(
    start: isize,
    end: isize,
    stride: isize,
    limit: usize,
) -> PyResult<(usize, usize, usize)> {
    let (start, end) = usize::try_from(start)
        .ok()
        .zip(usize::try_from(end).ok())
        .filter(|&(start, end)| start <= end && end <= limit)
        .ok_or_else(|| PyValueError::new_err("the batch lies outside its buffer"))?;
    let stride = usize::try_from(stride)
        .ok()
        .filter(|&stride| stride > 0)
        .ok_or_else(|| PyValueError::new_err("the stride of a batch is at least 1"))?;
    Ok((start, end, stride))
}

#[pyfunction]
#[pyo3(signature = (key, datagrams, start, end, stride, /))]
fn check_mac1<'py>(
    py: Python<'py>,
    key: &[u8],
    datagrams: &Bound<'py, PyAny>,
    start: isize,
    end: isize,
    stride: isize,
) -> PyResult<Bound<'py, PyBytes>> {
    let place = (start, end, stride);
    check_macs(py, datagrams, place, |batch, stride| {
        macs::check_mac1(key, batch, stride).ok_or("the key of mac1 has 32 bytes")
    })
}

#[pyfunction]
#[pyo3(signature = (cookie, datagrams, start, end, stride, /))]
fn check_mac2<'py>(
    py: Python<'py>,
    cookie: &[u8],
    datagrams: &Bound<'py, PyAny>,
    start: isize,
    end: isize,
    stride: isize,
) -> PyResult<Bound<'py, PyBytes>> {
    let place = (start, end, stride);
    check_macs(py, datagrams, place, |batch, stride| {
        macs::check_mac2(cookie, batch, stride).ok_or("a cookie has 16 bytes")
    })
}

/// A byte for each datagram of the batch at `place`: start, end and stride.
fn check_macs<'py>(
    py: Python<'py>,
    datagrams: &Bound<'py, PyAny>,
    place: (isize, isize, isize),
    check: impl FnOnce(&[u8], usize) -> Result<Vec<bool>, &'static str> + Send,
) -> PyResult<Bound<'py, PyBytes>> {
    let datagrams = PyMemoryView::from(datagrams)?;
    let (start, end, stride) = batch_place(place.0, place.1, place.2, datagrams.len()?)?;
    with_scratch(|scratch| {
        read(&datagrams, start, end, &mut scratch.input, 0)?;
        let batch = &scratch.input[..end - start];
        let right = run(py, batch.len(), || check(batch, stride)).map_err(PyValueError::new_err)?;
        let flags: Vec<u8> = right.into_iter().map(u8::from).collect();
        Ok(PyBytes::new(py, &flags))
    })
}

/// For `tunnel bench`: sessions made after it neither encrypt nor authenticate.
#[pyfunction]
fn disable_encryption() {
    transport_key::disable_encryption();
}

/// Let the sessions made after it use this cipher, "aws-lc" or "ipsec-mb", or the fastest; its
/// name. ValueError if it cannot be used here.
#[pyfunction]
#[pyo3(signature = (name, /))]
fn use_cipher(name: Option<&str>) -> PyResult<String> {
    let ipsec_mb = match name {
        Some("aws-lc") => Err(""),
        Some("ipsec-mb") | None => transport_key::use_ipsec_mb(),
        Some(_) => return Err(PyValueError::new_err("expected aws-lc or ipsec-mb")),
    };
    match ipsec_mb {
        Ok(version) => Ok(format!("ipsec-mb {version}")),
        Err(reason) if name == Some("ipsec-mb") => Err(PyValueError::new_err(reason)),
        Err(_) => {
            transport_key::use_aws_lc();
            Ok("aws-lc".to_owned())
        }
    }
}

/// The compiled datapath; `tunnel/datapath/interface.py` documents it.
#[pymodule(gil_used = true)]
mod _native {
    #[pymodule_export]
    use super::Ledger;
    #[pymodule_export]
    use super::Pump;
    #[pymodule_export]
    use super::Session;
    #[pymodule_export]
    use super::check_mac1;
    #[pymodule_export]
    use super::check_mac2;
    #[pymodule_export]
    use super::disable_encryption;
    #[pymodule_export]
    use super::use_cipher;
    #[pymodule_export]
    use crate::handshake_python::{Identity, Pending, ReceivedInitiations};
}
