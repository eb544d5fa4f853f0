package cluster

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// class is what a stream of Raft's carries. Each has its own streams, so that
// a heartbeat never waits behind a snapshot, and its own patience.
type class byte

const (
	classBeat     class = 'b'
	classVote     class = 'v'
	classData     class = 'd'
	classSnapshot class = 's'
)

// streams is Raft's raft.StreamLayer. An address in Raft's sense is a member's
// name here, with the class behind it.
//
// Raft sets deadlines on its streams, for whole messages: on a slow line a
// large one would never pass. Here a stream is given up when nothing moves.
type streams struct {
	name string
	dial func(ctx context.Context, member string, hello ...byte) (net.Conn, error)
	life context.Context

	election time.Duration
	accepted chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

func newStreams(n *Node) *streams {
	return &streams{
		name: n.cfg.Name, dial: n.dial, life: n.life, election: n.cfg.Election,
		accepted: make(chan net.Conn), closed: make(chan struct{}),
	}
}

const classMark = "\x00"

func (c class) of(member raft.ServerAddress) raft.ServerAddress {
	return member + classMark + raft.ServerAddress(rune(c))
}

// patience is how long nothing may move while a stream is written to, and how
// long the answer may take.
func (s *streams) patience(c class) (write, answer time.Duration) {
	quick := max(3*s.election, time.Second)
	slow := max(15*s.election, 5*time.Second)
	switch c {
	case classBeat, classVote:
		return quick, quick
	case classSnapshot:
		// The answer comes when the state has been restored.
		return slow, 5 * time.Minute
	}
	return slow, slow
}

// errDial: the other member could not be reached at all.
var errDial = errors.New("no stream")

func (s *streams) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	member, kind, found := strings.Cut(string(address), classMark)
	if !found || len(kind) != 1 {
		return nil, errors.New("no class of stream")
	}
	ctx, cancel := context.WithTimeout(s.life, timeout)
	defer cancel()
	conn, err := s.dial(ctx, member, streamRaft, kind[0])
	if err != nil {
		return nil, errors.Join(errDial, err)
	}
	write, answer := s.patience(class(kind[0]))
	return &stream{Conn: conn, write: write, read: answer, life: s.life}, nil
}

// serve gives an accepted stream to Raft and returns when Raft has closed it.
func (s *streams) serve(conn net.Conn, c class) {
	write, _ := s.patience(c)
	accepted := &stream{Conn: conn, write: write, life: s.life, done: make(chan struct{})}
	if c == classSnapshot {
		// It is used once. While it is read Raft does nothing else, so a leader
		// that dies in the midst must not hold it up for ever.
		accepted.read = write
	}
	select {
	case s.accepted <- accepted:
		<-accepted.done
	case <-s.closed:
		_ = conn.Close()
	}
}

func (s *streams) Accept() (net.Conn, error) {
	select {
	case conn := <-s.accepted:
		return conn, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

func (s *streams) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

func (s *streams) Addr() net.Addr { return memberAddr(s.name) }

type memberAddr string

func (memberAddr) Network() string  { return "member" }
func (a memberAddr) String() string { return string(a) }

// stream gives up when nothing moves for so long; 0: never.
type stream struct {
	net.Conn
	read, write time.Duration
	life        context.Context
	done        chan struct{}
	once        sync.Once
}

const writePart = 64 << 10

func (s *stream) Read(p []byte) (int, error) {
	if s.read > 0 {
		_ = s.Conn.SetReadDeadline(time.Now().Add(s.read))
	}
	return s.Conn.Read(p)
}

func (s *stream) Write(p []byte) (written int, err error) {
	for len(p) > 0 {
		// From then on Raft believes of a full disk that it took what it did not
		// (see logStore.insist): nothing of that may get out.
		if s.life.Err() != nil {
			return written, net.ErrClosed
		}
		_ = s.Conn.SetWriteDeadline(time.Now().Add(s.write))
		n, err := s.Conn.Write(p[:min(len(p), writePart)])
		written += n
		if err != nil {
			return written, err
		}
		p = p[n:]
	}
	return written, nil
}

func (s *stream) Close() error {
	err := s.Conn.Close()
	if s.done != nil {
		s.once.Do(func() { close(s.done) })
	}
	return err
}

// Raft's own deadlines are not for streams like these.
func (*stream) SetDeadline(time.Time) error      { return nil }
func (*stream) SetReadDeadline(time.Time) error  { return nil }
func (*stream) SetWriteDeadline(time.Time) error { return nil }
