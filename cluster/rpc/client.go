package rpc

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// Client calls the server at the other end of a stream.
type Client struct {
	out     writer
	running sync.WaitGroup
	done    chan struct{}

	mu    sync.Mutex
	last  uint64
	calls map[uint64]chan answer
	err   error // why the stream ended
}

type answer struct {
	code    byte
	payload []byte
}

// NewClient owns the stream from now on. One that is silent for stall is taken
// for broken.
func NewClient(conn net.Conn, stall time.Duration) *Client {
	c := &Client{
		out:   newWriter(conn, stall),
		done:  make(chan struct{}),
		calls: map[uint64]chan answer{},
	}
	c.running.Go(func() { c.receive(patient{conn, stall}) })
	c.running.Go(func() { c.ping(stall / 3) })
	return c
}

// Close ends the stream and all calls.
func (c *Client) Close() error {
	err := c.out.conn.Close()
	c.running.Wait()
	return err
}

// Done is closed once the stream has ended; the client is of no use then.
func (c *Client) Done() <-chan struct{} { return c.done }

func (c *Client) receive(in patient) {
	r := bufio.NewReader(in)
	for {
		f, err := readFrame(r)
		if err != nil {
			c.end(err)
			return
		}
		if f.kind != frameAnswer {
			continue
		}
		c.mu.Lock()
		waiting := c.calls[f.id]
		delete(c.calls, f.id)
		c.mu.Unlock()
		if waiting != nil {
			waiting <- answer{f.method, f.payload}
		}
	}
}

func (c *Client) end(err error) {
	_ = c.out.conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	close(c.done)
}

func (c *Client) ping(every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			_ = c.out.write(frame{kind: framePing}) // receive hears of it
		case <-c.done:
			return
		}
	}
}

// Call sends a request and waits for its answer. The context's deadline and its
// end reach the server.
func (c *Client) Call(ctx context.Context, method byte, payload []byte) (code byte, result []byte, err error) {
	if len(payload) > MaxPayload {
		return 0, nil, fmt.Errorf("%w: %d bytes are too many", ErrNotSent, len(payload))
	}
	if ctx.Err() != nil {
		return 0, nil, fmt.Errorf("%w: %w", ErrNotSent, context.Cause(ctx))
	}
	f := frame{kind: frameCall, method: method, payload: payload}
	if deadline, ok := ctx.Deadline(); ok {
		f.timeout = max(time.Until(deadline), time.Millisecond)
	}
	waiting := make(chan answer, 1)
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return 0, nil, fmt.Errorf("%w: %w", ErrNotSent, c.err)
	}
	c.last++
	f.id = c.last
	c.calls[f.id] = waiting
	c.mu.Unlock()
	defer c.forget(f.id)
	if err := c.out.write(f); err != nil {
		// A frame without its end is none.
		return 0, nil, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	select {
	case a := <-waiting:
		return a.code, a.payload, nil
	case <-ctx.Done():
		_ = c.out.write(frame{kind: frameCancel, id: f.id})
		return 0, nil, context.Cause(ctx)
	case <-c.done:
	}
	select {
	case a := <-waiting: // it came just before the end
		return a.code, a.payload, nil
	default:
		return 0, nil, fmt.Errorf("%w: %w", ErrBroken, c.err)
	}
}

func (c *Client) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.calls, id)
}
