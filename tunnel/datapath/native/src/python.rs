//! The extension module `tunnel.datapath._native`: class `Session` of `interface.Session`.
//!
//! Bytes are copied from the caller's buffers into scratch memory of this thread and back, with the
//! interpreter locked; that is cheap beside the cipher, and the only way to let go of the lock in
//! between without trusting the caller to leave its buffers alone. Results are the named tuples of
//! `interface.py`.

use std::cell::{Cell, RefCell};

use pyo3::buffer::{PyBuffer, ReadOnlyCell};
use pyo3::exceptions::{PyBufferError, PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple, PyType};

use crate::coalesce::{Coalescer, Offload};
use crate::drops::Drops;
use crate::limits::REJECT_AFTER_MESSAGES;
use crate::session::{self, Exhausted};

/// With fewer bytes to work on than this, letting other threads run would cost more than it gives.
const DETACH_FROM: usize = 16_384;

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
fn number<'py, T>(value: &Bound<'py, PyAny>, message: &'static str) -> PyResult<T>
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

fn contiguous<T>(slice: Option<T>, message: &'static str) -> PyResult<T> {
    slice.ok_or_else(|| PyBufferError::new_err(message))
}

fn readable<'a>(buffer: &'a PyBuffer<u8>, py: Python<'a>) -> PyResult<&'a [ReadOnlyCell<u8>]> {
    contiguous(buffer.as_slice(py), "the input buffer is not contiguous")
}

fn writable<'a>(buffer: &'a PyBuffer<u8>, py: Python<'a>) -> PyResult<&'a [Cell<u8>]> {
    contiguous(
        buffer.as_mut_slice(py),
        "the output buffer is read-only or not contiguous",
    )
}

fn read(from: &[ReadOnlyCell<u8>], into: &mut Vec<u8>) {
    into.extend(from.iter().map(ReadOnlyCell::get));
}

fn write(from: &[u8], into: &[Cell<u8>]) {
    for (cell, byte) in into.iter().zip(from) {
        cell.set(*byte);
    }
}

fn span(item: &Bound<'_, PyAny>) -> PyResult<(usize, usize)> {
    const MESSAGE: &str = "a span lies outside the frames' buffer";
    let pair = item.cast::<PyTuple>()?;
    if pair.len() != 2 {
        return Err(PyValueError::new_err("a span is a pair (start, end)"));
    }
    Ok((
        number(&pair.get_borrowed_item(0)?.to_owned(), MESSAGE)?,
        number(&pair.get_borrowed_item(1)?.to_owned(), MESSAGE)?,
    ))
}

/// Copy the frames one behind the other into the scratch memory, and note where they are now.
fn gather(
    frames: &[ReadOnlyCell<u8>],
    spans: &Bound<'_, PyAny>,
    scratch: &mut Scratch,
) -> PyResult<()> {
    let mut take = |item: &Bound<'_, PyAny>| -> PyResult<()> {
        let (start, end) = span(item)?;
        let frame = (start <= end)
            .then(|| frames.get(start..end))
            .flatten()
            .ok_or_else(|| PyValueError::new_err("a span lies outside the frames' buffer"))?;
        let at = scratch.input.len();
        read(frame, &mut scratch.input);
        scratch.spans.push((at, scratch.input.len()));
        Ok(())
    };
    if let Ok(list) = spans.cast::<PyList>() {
        list.iter().try_for_each(|item| take(&item))
    } else {
        spans.try_iter()?.try_for_each(|item| take(&item?))
    }
}

fn drops_dict<'py>(py: Python<'py>, drops: &Drops) -> PyResult<Bound<'py, PyDict>> {
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
    scratch.input.clear();
    scratch.spans.clear();
    scratch.frames.clear();
    let result = work(&mut scratch);
    SCRATCH.with(|place| place.replace(scratch));
    result
}

/// One session's pair of transport keys with its counters and its replay window.
///
/// A call that finds another thread at work on the same session raises RuntimeError.
#[pyclass(module = "tunnel.datapath._native")]
struct Session {
    core: session::Session,
}

#[pymethods]
impl Session {
    #[new]
    #[pyo3(signature = (send_key, receive_key, local_index, remote_index, *, initial_counter=None))]
    fn new(
        send_key: &[u8],
        receive_key: &[u8],
        local_index: &Bound<'_, PyAny>,
        remote_index: &Bound<'_, PyAny>,
        initial_counter: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        const INDEX: &str = "a receiver index has 32 bits";
        const COUNTER: &str = "the counter starts between 0 and the message limit";
        let local_index = number(local_index, INDEX)?;
        let remote_index = number(remote_index, INDEX)?;
        let counter = match initial_counter {
            Some(counter) => number(counter, COUNTER)?,
            None => 0,
        };
        if counter > REJECT_AFTER_MESSAGES {
            return Err(PyValueError::new_err(COUNTER));
        }
        let core =
            session::Session::new(send_key, receive_key, local_index, remote_index, counter)
                .ok_or_else(|| PyValueError::new_err("a transport key has 32 bytes"))?;
        Ok(Session { core })
    }

    #[getter]
    fn send_counter(&self) -> u64 {
        self.core.send_counter()
    }

    #[getter]
    fn local_index(&self) -> u32 {
        self.core.local_index()
    }

    #[getter]
    fn remote_index(&self) -> u32 {
        self.core.remote_index()
    }

    #[pyo3(signature = (frames, spans, mtu, out, start=0))]
    fn seal<'py>(
        &mut self,
        py: Python<'py>,
        frames: PyBuffer<u8>,
        spans: &Bound<'py, PyAny>,
        mtu: i64,
        out: PyBuffer<u8>,
        start: isize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let types = Types::get(py)?;
        let out = writable(&out, py)?;
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let out = out
            .get(start..)
            .ok_or_else(|| PyValueError::new_err("start lies outside the output buffer"))?;
        let mtu = usize::try_from(mtu).unwrap_or(0);
        with_scratch(|scratch| {
            gather(readable(&frames, py)?, spans, scratch)?;
            let Scratch {
                input,
                output,
                spans,
                ..
            } = scratch;
            let (core, room) = (&mut self.core, out.len());
            let sealed = run(py, input.len(), || {
                core.seal(input, spans, mtu, output, room, start)
            })
            .map_err(|Exhausted| types.exhausted(py))?;
            if let Some(last) = sealed.batches.last() {
                write(&output[..last.end - start], out);
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

    fn seal_keepalive<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        match self.core.seal_keepalive() {
            Ok(datagram) => Ok(PyBytes::new(py, &datagram)),
            Err(Exhausted) => Err(Types::get(py)?.exhausted(py)),
        }
    }

    #[pyo3(signature = (datagrams, start, end, stride, out, *, coalesce=15, outer_ecn=0))]
    #[expect(clippy::too_many_arguments, reason = "the interface has them")]
    fn open<'py>(
        &mut self,
        py: Python<'py>,
        datagrams: PyBuffer<u8>,
        start: isize,
        end: isize,
        stride: isize,
        out: PyBuffer<u8>,
        coalesce: u8,
        outer_ecn: u8,
    ) -> PyResult<Bound<'py, PyAny>> {
        let types = Types::get(py)?;
        let (out, datagrams) = (writable(&out, py)?, readable(&datagrams, py)?);
        let batch = usize::try_from(start)
            .ok()
            .zip(usize::try_from(end).ok())
            .and_then(|(start, end)| datagrams.get(start..end))
            .ok_or_else(|| PyValueError::new_err("the batch lies outside its buffer"))?;
        let stride = usize::try_from(stride)
            .ok()
            .filter(|&stride| stride > 0)
            .ok_or_else(|| PyValueError::new_err("the stride of a batch is at least 1"))?;
        if out.len() < batch.len() {
            return Err(PyValueError::new_err(
                "the output buffer is shorter than the batch",
            ));
        }
        with_scratch(|scratch| {
            read(batch, &mut scratch.input);
            let Scratch { input, frames, .. } = scratch;
            let core = &mut self.core;
            let opened = run(py, input.len(), || {
                core.open(input, stride, Offload(coalesce), outer_ecn, frames)
            });
            let spans = frames.write_frames(input, |at, bytes| write(bytes, &out[at..]));
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

/// The compiled datapath; `tunnel/datapath/interface.py` documents it.
#[pymodule(gil_used = true)]
mod _native {
    #[pymodule_export]
    use super::Session;
}
