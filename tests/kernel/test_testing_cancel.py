"""`respool.testing.cancel_everywhere` tries every moment, and catches what it is there to catch."""

from __future__ import annotations

import contextlib

import pytest
import trio
from trio.testing import MockClock

from respool.testing import CancelReport, cancel_everywhere


async def test_every_border_between_steps_is_tried_once() -> None:
    """Before the first step, and around each of two checkpoints."""

    async def two_checkpoints() -> None:
        await trio.lowlevel.cancel_shielded_checkpoint()
        await trio.lowlevel.checkpoint()

    assert await cancel_everywhere(two_checkpoints) == CancelReport(points=5, cancelled=5, completed=0)


async def test_an_operation_without_a_checkpoint_has_one_point() -> None:
    """Cancelling it before it starts changes nothing: it never looks."""

    async def nothing() -> None:
        pass

    assert await cancel_everywhere(nothing) == CancelReport(points=1, cancelled=0, completed=1)


async def test_the_check_is_called_after_every_run_also_the_last() -> None:
    """One check a point, and one for the undisturbed run; asynchronous or not."""
    calls: list[str] = []

    async def check() -> None:
        await trio.lowlevel.checkpoint()
        calls.append("asynchronous")

    report = await cancel_everywhere(trio.lowlevel.checkpoint, check=check)
    assert report.points + 1 == len(calls)
    await cancel_everywhere(trio.lowlevel.checkpoint, check=lambda: calls.append("synchronous"))
    assert calls.count("synchronous") == calls.count("asynchronous")


async def test_what_prepare_returns_is_passed_on() -> None:
    """Operation and check get the value, and prepare is never cancelled."""
    prepared: list[int] = []
    used: list[int] = []
    checked: list[int] = []

    async def prepare() -> int:
        await trio.lowlevel.checkpoint()
        prepared.append(len(prepared))
        return prepared[-1]

    async def operation(number: int) -> None:
        used.append(number)
        await trio.lowlevel.checkpoint()

    await cancel_everywhere(operation, prepare=prepare, check=checked.append)
    assert prepared == used == checked
    assert len(prepared) > 2


async def test_cancelling_just_after_the_result_arrived_is_tried() -> None:
    """The classic loss: a value was handed over, and the checkpoint behind the hand-over raises."""
    lost = 0

    async def careless(receive: trio.MemoryReceiveChannel[int]) -> None:
        nonlocal lost
        taken = await receive.receive()
        lost += taken
        await trio.lowlevel.checkpoint()
        lost -= taken

    async def prepare() -> trio.MemoryReceiveChannel[int]:
        nonlocal lost
        lost = 0
        send, receive = trio.open_memory_channel[int](1)
        nursery.start_soon(send_later, send)
        return receive

    async def send_later(send: trio.MemorySendChannel[int]) -> None:
        await trio.testing.wait_all_tasks_blocked()
        with send:
            send.send_nowait(1)

    def check(_: object) -> None:
        if lost:
            raise ValueError("lost")

    async with trio.open_nursery() as nursery:
        with pytest.raises(ValueError, match="lost") as caught:
            await cancel_everywhere(careless, prepare=prepare, check=check)
    (note,) = caught.value.__notes__
    assert "in careless (test_testing_cancel.py:" in note


async def test_arrived_results_survive_when_the_operation_is_right() -> None:
    """A parked task that was given its value completes although it is cancelled at that moment."""
    parked: list[trio.lowlevel.Task] = []

    async def wait_for_value() -> object:
        parked.append(trio.lowlevel.current_task())

        def abort(_: object) -> trio.lowlevel.Abort:
            parked.clear()
            return trio.lowlevel.Abort.SUCCEEDED

        return await trio.lowlevel.wait_task_rescheduled(abort)

    async def waker() -> None:
        while True:
            await trio.testing.wait_all_tasks_blocked()
            if parked:
                trio.lowlevel.reschedule(parked.pop())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(waker)
        report = await cancel_everywhere(wait_for_value)
        nursery.cancel_scope.cancel()
    assert report == CancelReport(points=3, cancelled=2, completed=1)


async def test_steps_of_other_tasks_do_not_count() -> None:
    """A busy neighbour adds no point; a task of the operation's own nursery does."""

    async def busy() -> None:
        while True:
            await trio.lowlevel.checkpoint()

    async def with_child() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.checkpoint)

    alone = await cancel_everywhere(trio.lowlevel.checkpoint)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(busy)
        nursery.start_soon(busy)
        assert alone == await cancel_everywhere(trio.lowlevel.checkpoint)
        nursery.cancel_scope.cancel()
    assert alone.points < (await cancel_everywhere(with_child)).points


async def test_a_swallowed_cancellation_is_reported() -> None:
    """With the line where Trio raised it."""

    async def deaf() -> None:
        try:
            await trio.sleep(1)
        except trio.Cancelled:
            return

    with pytest.raises(AssertionError, match=r"swallowed trio\.Cancelled .*in deaf \(test_testing_cancel\.py:\d+\)"):
        await cancel_everywhere(deaf)


async def test_a_cancellation_swallowed_by_a_child_is_reported() -> None:
    """The steps of children count, so their manners do as well."""

    async def deaf(task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            return

    async def parent() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(deaf)
            with trio.CancelScope(shield=True):
                for _ in range(5):
                    await trio.lowlevel.checkpoint()

    async def swallowing_nursery() -> None:
        try:
            await parent()
        except* trio.Cancelled:
            pass

    with pytest.raises(AssertionError, match=r"swallowed trio\.Cancelled"):
        await cancel_everywhere(swallowing_nursery)


async def test_a_converted_cancellation_is_reported() -> None:
    """An exception in the place of Cancelled is the operation's fault, and its cause is kept."""

    async def translating() -> None:
        try:
            await trio.sleep(1)
        except trio.Cancelled:
            raise OSError("connection lost") from None

    with pytest.raises(
        AssertionError, match=r"raised OSError\('connection lost'\) instead of trio.Cancelled"
    ) as caught:
        await cancel_everywhere(translating)
    assert isinstance(caught.value.__cause__, OSError)


async def test_an_error_beside_the_cancellation_is_reported() -> None:
    """A cleanup that fails hides the cancellation from whoever reads the error first."""

    async def bad_cleanup() -> None:
        try:
            await trio.sleep(1)
        except trio.Cancelled as cancelled:
            raise BaseExceptionGroup("both", [cancelled, OSError("cleanup")]) from None

    with pytest.raises(AssertionError, match=r"raised .*OSError\('cleanup'\).* instead of trio\.Cancelled alone"):
        await cancel_everywhere(bad_cleanup)


async def test_the_operations_own_errors_pass_through() -> None:
    """An operation that fails by itself raises what it raises, not wrapped in a group."""

    async def failing() -> None:
        raise LookupError("its own")

    with pytest.raises(LookupError, match="its own") as caught:
        await cancel_everywhere(failing)
    assert "cancel_everywhere: raised by the operation" in caught.value.__notes__[0]


async def test_shielded_cleanup_with_a_deadline_is_no_fault(autojump_clock: MockClock) -> None:
    """Politely saying goodbye under a shield, until its own deadline, is what a close does."""

    async def close() -> None:
        with trio.move_on_after(1, shield=True):
            await trio.sleep(0.5)
            await trio.sleep_forever()

    assert (await cancel_everywhere(close)).cancelled == 0


async def test_what_hangs_is_named(autojump_clock: MockClock) -> None:
    """The timeout says what hung, and where the operation had been cancelled."""

    async def sleep_on() -> None:
        await trio.sleep_forever()

    with pytest.raises(AssertionError, match="the operation took longer than 60 s; this run was not cancelled"):
        await cancel_everywhere(sleep_on)
    with pytest.raises(AssertionError, match=r"the check took longer than 5 s; this run was cancelled just before"):
        await cancel_everywhere(trio.lowlevel.checkpoint, check=trio.sleep_forever, timeout=5)
    with pytest.raises(AssertionError, match="prepare took longer than 60 s; this run was not cancelled"):
        await cancel_everywhere(trio.sleep, prepare=trio.sleep_forever)


async def test_a_cancellation_from_outside_is_passed_on(autojump_clock: MockClock) -> None:
    """A test's own deadline ends it, and is not mistaken for a point."""
    with trio.move_on_after(1) as outside:
        await cancel_everywhere(trio.sleep_forever)
    assert outside.cancelled_caught


async def test_real_sockets() -> None:
    """Nothing depends on the clock: an echo over loopback, with the socket closed wherever it is cancelled."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    opened: list[trio.SocketStream] = []

    async def echo(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            async with stream:
                async for data in stream:
                    await stream.send_all(data)

    async def exchange() -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            opened.append(stream)
            await stream.send_all(b"ping")
            assert await stream.receive_some() == b"ping"

    def check() -> None:
        assert all(stream.socket.fileno() == -1 for stream in opened)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, echo, listeners)
        report = await cancel_everywhere(exchange, check=check)
        nursery.cancel_scope.cancel()
    assert report.cancelled > 5
