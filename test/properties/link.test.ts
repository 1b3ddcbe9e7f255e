import { describe, expect, it } from 'vitest';
import { HistoryClock } from './history-clock.js';
import { type Arrival, Flow, Link, type LinkBuffers, type LinkConditions } from './link.js';

const KIB = 1_024;
const LARGE: LinkBuffers = { sendBuffer: 4 * KIB * KIB, receiveBuffer: 4 * KIB * KIB };
const FAST: LinkConditions = { downRate: undefined, upRate: undefined, delayMs: 0, jitterMs: [] };

function flowOf(limits: Partial<ConstructorParameters<typeof Flow>[1]> = {}): Flow {
  const usual = { rate: 10, sendBuffer: 30_000, receiveBuffer: 30_000, readRate: 1_000, isCut: false };
  return new Flow(0, { ...usual, ...limits });
}

function linked(conditions: Partial<LinkConditions> = {}, buffers: Partial<LinkBuffers> = {}) {
  const clock = new HistoryClock();
  const startedAt = clock.now();
  const arrivals: (Arrival & { at: number })[] = [];
  const link = new Link(clock, { ...FAST, ...conditions }, { ...LARGE, ...buffers }, (arrival) => {
    arrivals.push({ ...arrival, at: clock.now() - startedAt });
    arrival.frame?.();
  });
  return { clock, link, arrivals, since: () => clock.now() - startedAt };
}

describe('Flow', () => {
  it('passes bytes at the rate of the link', () => {
    const flow = flowOf();
    flow.write(20_000, 0);
    expect(flow.unsent).toBe(0);
    flow.flow(1_000);
    expect([flow.delivered, flow.read]).toEqual([10_000, 10_000]);
    flow.flow(5_000);
    expect([flow.delivered, flow.read]).toEqual([20_000, 20_000]);
  });

  it('takes what fits into the send buffer, and more only when a third of it is free', () => {
    const flow = flowOf();
    flow.write(50_000, 0);
    expect([flow.taken, flow.unsent, flow.queued]).toEqual([30_000, 20_000, 50_000]);
    flow.flow(999);
    expect([flow.taken, flow.takenAt]).toEqual([30_000, 0]);
    flow.flow(1_000);
    expect([flow.taken, Math.round(flow.takenAt)]).toEqual([40_000, 1_000]);
    flow.flow(2_500);
    expect([flow.taken, flow.queued, Math.round(flow.takenAt)]).toEqual([50_000, 0, 2_000]);
  });

  it('counts a write as queued until the kernel has taken all of it, and what waited meanwhile as one', () => {
    const flow = flowOf();
    flow.write(35_000, 0);
    flow.write(3_000, 0);
    flow.write(9_000, 0);
    expect(flow.queued).toBe(47_000);
    flow.flow(1_000);
    // The first write is complete; 5,000 of the two others have been taken.
    expect([flow.taken, flow.queued]).toEqual([40_000, 12_000]);
    flow.flow(2_000);
    expect(flow.queued).toBe(0);
  });

  it('stops when the receive buffer is full, and so does what the kernel takes', () => {
    const flow = flowOf({ readRate: 0 });
    flow.write(100_000, 0);
    flow.flow(60_000);
    expect([flow.taken, Math.round(flow.delivered), flow.read]).toEqual([60_000, 30_000, 0]);
    expect(Math.round(flow.takenAt)).toBe(3_000);
    flow.change({ readRate: 5 }, 60_000);
    flow.flow(62_000);
    expect([flow.read, flow.delivered].map(Math.round)).toEqual([10_000, 40_000]);
    expect(flow.taken).toBe(70_000);
  });

  it('passes nothing while it is cut, and then everything', () => {
    const flow = flowOf();
    flow.write(20_000, 0);
    flow.change({ isCut: true }, 500);
    flow.flow(30_000);
    expect(flow.read).toBe(5_000);
    flow.change({ isCut: false }, 30_000);
    flow.flow(31_500);
    expect(flow.read).toBe(20_000);
  });

  it.each([
    ['a fast reader', {}],
    ['a slow reader', { readRate: 3 }],
    ['a small send buffer', { sendBuffer: 2_000 }],
    ['a small receive buffer', { receiveBuffer: 500, readRate: 9 }],
  ])('knows when bytes will have been read (%s)', (_, limits) => {
    const flow = flowOf(limits);
    flow.write(7_000, 0);
    flow.write(55_000, 0);
    flow.flow(100);
    const at = flow.whenRead(50_000, 100);
    flow.flow(at - 1);
    expect(flow.read).toBeLessThan(50_000);
    flow.flow(at + 1);
    expect(flow.read).toBeGreaterThanOrEqual(50_000);
  });

  it('knows that bytes will never be read', () => {
    const flow = flowOf({ readRate: 0 });
    flow.write(100, 0);
    expect(flow.whenRead(100, 10)).toBe(Infinity);
    const cut = flowOf({ isCut: true });
    cut.write(100, 0);
    expect(cut.whenRead(100, 10)).toBe(Infinity);
  });
});

describe('Link', () => {
  it('brings a small answer after two delays', async () => {
    const { clock, link, arrivals } = linked({ delayMs: 400 });
    link.send(2, () => link.upload(6));
    await clock.advance(799);
    expect(arrivals).toEqual([]);
    await clock.advance(3);
    expect(arrivals.map(({ bytes }) => bytes)).toEqual([6]);
  });

  it('brings an answer after the bytes before it, in both directions', async () => {
    const { clock, link, arrivals, since } = linked({ downRate: 100, upRate: 10 });
    link.send(200 * KIB);
    let answeredAt = 0;
    link.send(2, () => {
      link.upload(30 * KIB);
      link.upload(6, () => {
        answeredAt = since();
      });
    });
    await clock.advance(4_900);
    expect(answeredAt).toBe(0);
    await clock.advance(200);
    // 2 s for 200 KiB at 100 KiB/s, and 3 s for 30 KiB at 10 KiB/s.
    expect(answeredAt).toBeGreaterThanOrEqual(5_000);
    expect(arrivals.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(30 * KIB + 6);
    // An upload is heard of all the time.
    expect(arrivals.length).toBeGreaterThan(50);
  });

  it('keeps the order, whatever the jitter', async () => {
    const { clock, link } = linked({ delayMs: 50, jitterMs: [90, 0, 10, 70, 0, 0] });
    const order: number[] = [];
    for (let i = 0; i < 20; i++) {
      link.upload(10, () => order.push(i));
      await clock.advance(3);
    }
    await clock.advance(500);
    expect(order).toEqual(Array.from({ length: 20 }, (_, i) => i));
  });

  it('loses nothing while it is cut, on the way or waiting', async () => {
    const { clock, link, since } = linked({ delayMs: 100, upRate: 10 });
    const came: [number, number][] = [];
    for (let i = 0; i < 8; i++) link.upload(512, () => came.push([i, since()]));
    await clock.advance(120);
    link.setCut('up', true);
    await clock.advance(60_000);
    const before = came.length;
    expect(before).toBeLessThan(2);
    link.setCut('up', false);
    await clock.advance(1_000);
    expect(came.map(([i]) => i)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(came[before]?.[1]).toBeGreaterThanOrEqual(60_120);
  });

  it('answers nothing that cannot reach the peer, and all of it later', async () => {
    const { clock, link, arrivals } = linked({ delayMs: 10 });
    link.setCut('down', true);
    link.send(2, () => link.upload(6));
    link.send(2, () => link.upload(6));
    await clock.advance(25_000);
    expect(arrivals).toEqual([]);
    expect(link.answerAt(link.down.written, 0)).toBe(Infinity);
    link.setCut('down', false);
    await clock.advance(30);
    expect(arrivals.length).toBe(2);
  });

  it('limits the rate by the buffers where the round trip is long', async () => {
    const { clock, link, since } = linked({ delayMs: 1_000 }, { sendBuffer: 16 * KIB });
    let readAt = 0;
    link.send(160 * KIB, () => {
      readAt = since();
    });
    await clock.advance(60_000);
    // One buffer for each round trip, and the way there.
    expect(Math.round(readAt / 1_000)).toBe(21);
  });

  it('follows a change of the conditions', async () => {
    const { clock, link, since } = linked({ downRate: 2 });
    let readAt = 0;
    link.send(100 * KIB, () => {
      readAt = since();
    });
    await clock.advance(10_000);
    link.change({ ...FAST, downRate: 80 });
    await clock.advance(5_000);
    expect(Math.round(readAt / 100)).toBe(110);
  });

  it('says when an answer would come', async () => {
    const { clock, link, since } = linked({ downRate: 30, upRate: 8, delayMs: 400, jitterMs: [20] });
    link.send(60 * KIB);
    link.upload(8 * KIB);
    let answeredAt = 0;
    link.send(2, () =>
      link.upload(6, () => {
        answeredAt = since();
      }),
    );
    const expected = link.answerAt(link.down.written, 0) - clock.now();
    await clock.advance(10_000);
    expect(Math.abs(answeredAt - expected)).toBeLessThan(30);
  });

  it('brings at once what is on its way, where it is told to hurry', async () => {
    const { clock, link, arrivals } = linked({ delayMs: 10_000 });
    link.upload(5);
    link.send(2, () => link.upload(6));
    await clock.advance(5_000);
    link.change(FAST);
    link.hurry();
    await clock.advance(3);
    expect(arrivals.map(({ bytes }) => bytes)).toEqual([5, 6]);
  });

  it('is silent when it has ended', async () => {
    const { clock, link, arrivals } = linked({ delayMs: 100 });
    link.upload(6);
    link.send(2, () => link.upload(6));
    link.end();
    await clock.advance(1_000);
    expect(arrivals).toEqual([]);
  });
});
