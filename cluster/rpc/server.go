package rpc

import (
	"bufio"
	"context"
	"net"
	"sync"
	"time"
)

// Handler answers a call. The context ends when the caller is gone.
type Handler func(ctx context.Context, method byte, payload []byte) (code byte, result []byte)

// Serve answers the calls of one stream until it ends or the context does, and
// returns once no handler runs.
func Serve(ctx context.Context, conn net.Conn, stall time.Duration, handle Handler) {
	ctx, cancel := context.WithCancel(ctx)
	s := &server{ctx: ctx, out: newWriter(conn, stall), handle: handle, cancels: map[uint64]context.CancelFunc{}}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	s.receive(patient{conn, stall})
	cancel()
	stop()
	_ = conn.Close()
	s.running.Wait()
}

type server struct {
	ctx     context.Context
	out     writer
	handle  Handler
	running sync.WaitGroup

	mu      sync.Mutex
	cancels map[uint64]context.CancelFunc
}

func (s *server) receive(in patient) {
	r := bufio.NewReader(in)
	for {
		f, err := readFrame(r)
		if err != nil {
			return
		}
		switch f.kind {
		case frameCall:
			s.begin(f)
		case frameCancel:
			s.mu.Lock()
			if cancel := s.cancels[f.id]; cancel != nil {
				cancel()
			}
			s.mu.Unlock()
		case framePing:
			_ = s.out.write(frame{kind: framePong})
		}
	}
}

func (s *server) begin(f frame) {
	ctx, cancel := s.ctx, context.CancelFunc(nil)
	if f.timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, f.timeout)
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	s.mu.Lock()
	busy := len(s.cancels) >= maxCalls || s.cancels[f.id] != nil
	if !busy {
		s.cancels[f.id] = cancel
	}
	s.mu.Unlock()
	if busy {
		cancel()
		_ = s.out.write(frame{kind: frameAnswer, id: f.id, method: Busy})
		return
	}
	s.running.Go(func() {
		defer s.end(f.id, cancel)
		code, result := s.handle(ctx, f.method, f.payload)
		_ = s.out.write(frame{kind: frameAnswer, id: f.id, method: code, payload: result})
	})
}

func (s *server) end(id uint64, cancel context.CancelFunc) {
	cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.cancels, id)
}
