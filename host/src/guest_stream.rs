//! A channel handed to the guest as a stream, and its outcome as a future.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::{mpsc, oneshot};
use wasmtime::StoreContextMut;
use wasmtime::component::{
    Accessor, ComponentType, Destination, FutureReader, HasData, Lift, Lower, StreamProducer,
    StreamReader, StreamResult,
};

/// Turns the two receivers into what a WIT function can return.
pub(crate) fn from_channels<T, D, Item, Outcome>(
    accessor: &Accessor<T, D>,
    items: mpsc::Receiver<Item>,
    outcome: oneshot::Receiver<Outcome>,
) -> wasmtime::Result<(StreamReader<Item>, FutureReader<Outcome>)>
where
    T: Send,
    D: HasData,
    Item: ComponentType + Lower + Lift + Send + Sync + 'static,
    Outcome: ComponentType + Lower + Lift + Send + Sync + 'static,
{
    accessor.with(|mut access| {
        let items = StreamReader::new(&mut access, ChannelProducer(items))?;
        let outcome = FutureReader::new(&mut access, outcome)?;
        Ok((items, outcome))
    })
}

/// Produces the items of a channel one at a time, so that no more of them are
/// in memory than the channel holds.
struct ChannelProducer<Item>(mpsc::Receiver<Item>);

impl<D, Item: Send + Sync + 'static> StreamProducer<D> for ChannelProducer<Item>
where
    Item: Lower,
{
    type Item = Item;
    type Buffer = Option<Item>;

    fn poll_produce<'a>(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        store: StoreContextMut<'a, D>,
        mut destination: Destination<'a, Self::Item, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        // A read of no items asks whether we are ready: it must not consume one.
        if destination.remaining(store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let received = match self.get_mut().0.poll_recv(context) {
            Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
            received => ready!(received),
        };
        Poll::Ready(Ok(match received {
            Some(item) => {
                destination.set_buffer(Some(item));
                StreamResult::Completed
            }
            None => StreamResult::Dropped,
        }))
    }
}
