//! The classes of `tunnel.datapath._native` for handshakes; `tunnel/protocol/driver.py` says what their
//! methods do.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::IntoIter;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::apart::Apart;
use crate::handshake::{self, Answer, Received, TIMESTAMP, TransportKeys};
use crate::noise::{KEY, Refused, Secret};
use crate::python::number;

const LOW_ORDER: &str = "the public key is a low-order point and agrees on no secret";

/// A place, an ephemeral key, our receiver index and a preshared key.
type Request<'py> = (
    usize,
    Bound<'py, PyBytes>,
    Bound<'py, PyAny>,
    Bound<'py, PyBytes>,
);
/// A message and the two keys that it offers.
type Response<'py> = (
    Bound<'py, PyBytes>,
    Bound<'py, PyBytes>,
    Bound<'py, PyBytes>,
);

fn array<const N: usize>(bytes: &[u8], what: &str) -> PyResult<[u8; N]> {
    let found = bytes.len();
    let wrong = |_| PyValueError::new_err(format!("{what} is {N} bytes long, found {found}"));
    bytes.try_into().map_err(wrong)
}

fn key(bytes: &[u8], what: &str) -> PyResult<Secret> {
    array::<KEY>(bytes, what).map(Secret::new)
}

fn index(value: &Bound<'_, PyAny>) -> PyResult<u32> {
    number(value, "an index is an unsigned 32-bit number")
}

fn low_order(_: Refused) -> PyErr {
    PyValueError::new_err(LOW_ORDER)
}

fn secrets<'py>(
    py: Python<'py>,
    keys: &TransportKeys,
) -> (Bound<'py, PyBytes>, Bound<'py, PyBytes>) {
    (
        PyBytes::new(py, &keys.send[..]),
        PyBytes::new(py, &keys.receive[..]),
    )
}

/// See `StaticIdentity` of driver.py.
#[pyclass(frozen, module = "tunnel.datapath._native")]
pub struct Identity {
    core: Arc<handshake::Identity>,
}

#[pymethods]
impl Identity {
    #[new]
    fn new(private_key: &[u8]) -> PyResult<Self> {
        let core = handshake::Identity::new(&key(private_key, "a private key")?);
        Ok(Identity {
            core: Arc::new(core.map_err(low_order)?),
        })
    }

    fn add_peer(&self, public_key: &[u8]) -> PyResult<()> {
        self.core.add_peer(array(public_key, "a public key")?);
        Ok(())
    }

    fn prepare(&self, most: usize) -> bool {
        self.core.prepare(most)
    }

    fn remove_peer(&self, public_key: &[u8]) -> PyResult<()> {
        self.core.remove_peer(&array(public_key, "a public key")?);
        Ok(())
    }

    fn is_low_order(&self, public_key: &[u8]) -> PyResult<bool> {
        let public_key = array(public_key, "a public key")?;
        Ok(self.core.static_static(&public_key).is_err())
    }

    fn create_initiation<'py>(
        &self,
        py: Python<'py>,
        public_key: &[u8],
        ephemeral: &[u8],
        local_index: &Bound<'py, PyAny>,
        timestamp: &[u8],
    ) -> PyResult<(Bound<'py, PyBytes>, Pending)> {
        let public_key = array(public_key, "a public key")?;
        let ephemeral = key(ephemeral, "an ephemeral key")?;
        let timestamp = array::<TIMESTAMP>(timestamp, "a TAI64N timestamp")?;
        let local_index = index(local_index)?;
        let (message, core) = self
            .core
            .create_initiation(&public_key, &ephemeral, local_index, &timestamp)
            .map_err(low_order)?;
        Ok((PyBytes::new(py, &message), Pending { core }))
    }

    fn consume_initiations(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyList>,
    ) -> PyResult<ReceivedInitiations> {
        let mut copies = Vec::with_capacity(messages.len());
        for message in messages.iter() {
            copies.push(message.cast::<PyBytes>()?.as_bytes().to_vec());
        }
        let opening = py.detach(|| self.core.consume_initiations(copies));
        Ok(ReceivedInitiations {
            places: Mutex::new(Places {
                opening,
                opened: Vec::new(),
            }),
        })
    }
}

/// See `PendingInitiation` of driver.py.
#[pyclass(frozen, module = "tunnel.datapath._native")]
pub struct Pending {
    core: handshake::Pending,
}

#[pymethods]
impl Pending {
    fn consume_response<'py>(
        &self,
        py: Python<'py>,
        message: &[u8],
        preshared_key: &[u8],
    ) -> PyResult<Option<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)>> {
        let preshared_key = key(preshared_key, "a preshared key")?;
        let keys = self.core.consume_response(message, &preshared_key);
        Ok(keys.ok().map(|keys| secrets(py, &keys)))
    }
}

struct Places {
    opening: Apart<Option<Received>>,
    opened: Vec<Option<Received>>,
}

/// See `ReceivedInitiations` of driver.py.
#[pyclass(frozen, module = "tunnel.datapath._native")]
pub struct ReceivedInitiations {
    places: Mutex<Places>,
}

impl ReceivedInitiations {
    /// The places, all of them opened.
    fn opened(&self, py: Python<'_>) -> MutexGuard<'_, Places> {
        py.detach(|| {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            let Places { opening, opened } = &mut *places;
            opened.extend(opening.take());
        });
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl ReceivedInitiations {
    #[getter]
    fn senders<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let sender = |received: &Received| {
            let public_key = PyBytes::new(py, &received.remote_static);
            let timestamp = PyBytes::new(py, &received.timestamp);
            (public_key, received.remote_index, timestamp)
        };
        let places = self.opened(py);
        PyList::new(
            py,
            places.opened.iter().map(|place| place.as_ref().map(sender)),
        )
    }

    fn create_responses(&self, py: Python<'_>, answers: Vec<Request<'_>>) -> PyResult<Responses> {
        let mut work = Vec::with_capacity(answers.len());
        for (place, ephemeral, local_index, preshared_key) in &answers {
            let ephemeral = key(ephemeral.as_bytes(), "an ephemeral key")?;
            let preshared_key = key(preshared_key.as_bytes(), "a preshared key")?;
            let local_index = index(local_index)?;
            let received = self
                .opened(py)
                .opened
                .get_mut(*place)
                .and_then(Option::take)
                .ok_or_else(|| PyValueError::new_err("no initiation is to be answered there"))?;
            work.push(Answer {
                received,
                ephemeral,
                index: local_index,
                preshared_key,
            });
        }
        Ok(Responses {
            making: py.detach(|| handshake::create_responses(work)),
            made: Vec::new().into_iter(),
        })
    }
}

/// What `create_responses` of driver.py gives.
#[pyclass(module = "tunnel.datapath._native")]
pub struct Responses {
    making: Apart<handshake::Response>,
    made: IntoIter<handshake::Response>,
}

#[pymethods]
impl Responses {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Response<'py>>> {
        if self.made.len() == 0 {
            self.made = py.detach(|| self.making.take()).into_iter();
        }
        let Some(response) = self.made.next() else {
            return Ok(None);
        };
        let (message, keys) = response.map_err(low_order)?;
        let (send, receive) = secrets(py, &keys);
        Ok(Some((PyBytes::new(py, &message), send, receive)))
    }
}
