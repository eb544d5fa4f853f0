package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/weirmesh/weir/cluster/rpc"
)

// Network carries the streams between members. Both ends of a stream have
// proven who they are, and that they are servers of this cluster.
type Network interface {
	// Dial opens a stream to the server named member, at an address; the far end
	// has proven its name. An empty name is whoever is there. An error that wraps
	// ErrRefused says that this member was removed from the cluster for good.
	Dial(ctx context.Context, address, member string) (net.Conn, error)
	// Accept returns the next stream that another server of the cluster opened to
	// this one, and who that is. Any error but the context's ends the network.
	Accept(ctx context.Context) (conn net.Conn, member string, err error)
}

// The first byte of a stream says what it is for; Raft's have a second, the
// class of what they carry.
const (
	streamRaft = 'r'
	streamRPC  = 'm'
)

// helloWait is how long an opened stream may take to say what it is for.
const helloWait = 5 * time.Second

// stallAfter is how long a stream of calls may be silent: both ends speak all
// the time.
func (c Config) stallAfter() time.Duration { return max(6*c.Election, 2*time.Second) }

// errNoAddress: nobody has told this member where the other one is.
var errNoAddress = errors.New("its address is not known yet")

// dial opens a stream to a member, wherever it is now.
func (n *Node) dial(ctx context.Context, member string, hello ...byte) (net.Conn, error) {
	at, found := n.roster.Get(member)
	if !found || at.Address == "" {
		return nil, fmt.Errorf("dial %s: %w", member, errNoAddress)
	}
	return n.dialAt(ctx, at.Address, member, hello...)
}

func (n *Node) dialAt(ctx context.Context, address, member string, hello ...byte) (net.Conn, error) {
	if n.cfg.Network == nil {
		return nil, errors.New("this member has no network")
	}
	conn, err := n.cfg.Network.Dial(ctx, address, member)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", member, err)
	}
	_ = conn.SetWriteDeadline(time.Now().Add(helloWait))
	if _, err := conn.Write(hello); err != nil {
		return nil, errors.Join(fmt.Errorf("dial %s: %w", member, err), conn.Close())
	}
	_ = conn.SetWriteDeadline(time.Time{})
	return conn, nil
}

// accept takes streams until the member ends, and gives each to whom it is for.
func (n *Node) accept() {
	var streams sync.WaitGroup
	defer streams.Wait()
	for {
		conn, member, err := n.cfg.Network.Accept(n.life)
		if err != nil {
			if n.life.Err() == nil {
				n.cfg.Logger.Error("cannot accept streams of other members any more", "error", err)
			}
			return
		}
		streams.Go(func() { n.receive(conn, member) })
	}
}

func (n *Node) receive(conn net.Conn, member string) {
	stop := context.AfterFunc(n.life, func() { _ = conn.Close() })
	defer stop()
	_ = conn.SetReadDeadline(time.Now().Add(helloWait))
	var hello [1]byte
	if _, err := io.ReadFull(conn, hello[:]); err == nil && hello[0] == streamRPC {
		_ = conn.SetReadDeadline(time.Time{})
		rpc.Serve(n.life, conn, n.cfg.stallAfter(), func(ctx context.Context, method byte, payload []byte) (byte, []byte) {
			return n.answer(ctx, member, method, payload)
		})
		return
	} else if err == nil && hello[0] == streamRaft && !n.blank.Load() {
		if _, err := io.ReadFull(conn, hello[:]); err == nil {
			_ = conn.SetReadDeadline(time.Time{})
			n.streams.serve(conn, class(hello[0]))
			return
		}
	}
	_ = conn.Close()
}

// clients are the streams of calls to other members, one to each.
type clients struct {
	mu   sync.Mutex
	open map[string]*dialing
	shut bool
}

// dialing is a client, once ready is closed.
type dialing struct {
	ready  chan struct{}
	client *rpc.Client
	err    error
}

// client returns the client of a member, and dials where there is none. Who
// comes while another dials waits for that one.
func (n *Node) client(ctx context.Context, member string) (*rpc.Client, error) {
	c := &n.clients
	c.mu.Lock()
	if c.shut {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	d := c.open[member]
	mine := d == nil
	if mine {
		d = &dialing{ready: make(chan struct{})}
		c.open[member] = d
	}
	c.mu.Unlock()
	if mine {
		n.minding.Go(func() { n.tend(member, d) })
	}
	select {
	case <-d.ready:
		return d.client, d.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// tend dials, and keeps the client until it breaks.
func (n *Node) tend(member string, d *dialing) {
	ctx, cancel := context.WithTimeout(n.life, n.cfg.stallAfter())
	conn, err := n.dial(ctx, member, streamRPC)
	cancel()
	defer func() {
		n.clients.mu.Lock()
		delete(n.clients.open, member)
		n.clients.mu.Unlock()
	}()
	if err != nil {
		d.err = err
		close(d.ready)
		return
	}
	d.client = rpc.NewClient(conn, n.cfg.stallAfter())
	close(d.ready)
	select {
	case <-d.client.Done():
	case <-n.life.Done():
	}
	_ = d.client.Close()
}

// shutClients lets no new ones be made, so that minding can be waited for.
func (n *Node) shutClients() {
	n.clients.mu.Lock()
	defer n.clients.mu.Unlock()
	n.clients.shut = true
}

// call asks a member. Its error is rpc.ErrNotSent where nothing was asked.
func (n *Node) call(ctx context.Context, member string, method byte, payload []byte) (byte, []byte, error) {
	client, err := n.client(ctx, member)
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %w", rpc.ErrNotSent, err)
	}
	code, result, err := client.Call(ctx, method, payload)
	if err == nil && code == rpc.Busy {
		return 0, nil, fmt.Errorf("%w: %s is busy", rpc.ErrNotSent, member)
	}
	return code, result, err
}

// callAt asks whoever is at an address, over a stream of its own.
func (n *Node) callAt(ctx context.Context, address string, method byte, payload []byte) (byte, []byte, error) {
	conn, err := n.dialAt(ctx, address, "", streamRPC)
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %w", rpc.ErrNotSent, err)
	}
	client := rpc.NewClient(conn, n.cfg.stallAfter())
	defer client.Close()
	return client.Call(ctx, method, payload)
}
