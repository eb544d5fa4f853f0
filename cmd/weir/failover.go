package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

// patience is how long a server may be silent before another is asked: to a
// connection, and to a call that can be made twice.
const patience = 5 * time.Second

// harmless are the calls that change nothing, so that whoever does not answer
// one may have heard it or not.
var harmless = map[string]bool{
	weirv1connect.AdminServiceGetProcedure:              true,
	weirv1connect.AdminServiceListProcedure:             true,
	weirv1connect.AdminServiceWatchProcedure:            true,
	weirv1connect.AdminServiceGetModuleProcedure:        true,
	weirv1connect.AdminServiceGetStatusProcedure:        true,
	weirv1connect.ClusterServiceGetStatusProcedure:      true,
	weirv1connect.ClusterServiceListKeysProcedure:       true,
	weirv1connect.ClusterServiceListJoinTokensProcedure: true,
	weirv1connect.ClusterServiceDoctorProcedure:         true,
	weirv1connect.ClusterServiceBackupProcedure:         true,
}

// server is one address of the admin API.
type server struct {
	base      *url.URL
	transport connect.Transport
}

// failover is a connect.Transport over several servers. It asks the one that
// answered last, and another in its place
//
//   - when it was not reached, or has answered that nothing was done; and
//   - when it does not answer a harmless call.
//
// When nobody else has answered either, one that was silent is asked once more,
// and waited for: it may be the last that is left, and looking for a leader.
//
// A call that streams to the server is made to one alone: what was sent of it
// cannot be sent again.
type failover struct {
	servers []server
	current atomic.Int32
}

// NewClientStream implements connect.Transport.
func (f *failover) NewClientStream(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
	c := &failoverCall{failover: f, outer: ctx, spec: spec, at: int(f.current.Load())}
	if err := c.open(); err != nil {
		return nil, err
	}
	return c, nil
}

// failoverCall is one call, and the server that it is made to.
type failoverCall struct {
	*failover
	outer context.Context
	spec  connect.Spec
	at    int

	connect.ClientStream
	end     context.CancelFunc
	silence *time.Timer
	// silent: it was given up since it said nothing.
	silent *atomic.Bool
	// reached: there was a connection, so something may have been sent.
	reached *atomic.Bool
	heard   bool
	sent    any
	missed  []error // of the servers before
	// again are the servers that were silent; last: one of them is asked anew.
	again []int
	last  bool
}

func (c *failoverCall) open() error {
	ctx, cancel := context.WithCancel(c.outer)
	reached := new(atomic.Bool)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { reached.Store(true) }})
	stream, err := c.servers[c.at].transport.NewClientStream(ctx, c.spec)
	if err != nil {
		cancel()
		return unreachable(c.servers[c.at].base, err)
	}
	silent := new(atomic.Bool)
	c.ClientStream, c.end, c.reached, c.silent, c.silence = stream, cancel, reached, silent, nil
	if harmless[c.spec.Procedure] && c.another() {
		c.silence = time.AfterFunc(patience, func() {
			silent.Store(true)
			cancel()
		})
	}
	return nil
}

// another says whether there is a server that was not asked yet.
func (c *failoverCall) another() bool { return len(c.missed) < len(c.servers)-1 }

// next turns to the server to ask after this one, if there is one.
func (c *failoverCall) next() bool {
	switch {
	case c.another():
		c.at = (c.at + 1) % len(c.servers)
	case !c.last && len(c.again) > 0:
		c.at, c.last = c.again[0], true
	default:
		return false
	}
	return true
}

// Send keeps the message for the next server. That a server is gone is for
// Receive to find.
func (c *failoverCall) Send(m any) error {
	first := c.sent == nil
	c.sent = m
	err := c.ClientStream.Send(m)
	if err != nil && first && c.outer.Err() == nil && c.spec.StreamType&connect.StreamTypeClient == 0 {
		return nil
	}
	return c.name(unreachable(c.servers[c.at].base, err))
}

// Receive goes on to the next server until one has answered.
func (c *failoverCall) Receive(m any) error {
	for {
		err := c.ClientStream.Receive(m)
		if err == nil || errors.Is(err, io.EOF) {
			c.answered()
			return err
		}
		if c.silent.Load() && c.outer.Err() == nil {
			err = fmt.Errorf("%s has said nothing for %s", c.servers[c.at].base, patience)
			c.again = append(c.again, c.at)
		}
		failed := unreachable(c.servers[c.at].base, err)
		if c.heard || !c.mayRepeat(err) || !c.next() {
			if hasAnswered(err) {
				c.answered()
			}
			return c.name(failed)
		}
		c.missed = append(c.missed, failed)
		_ = c.close() // it has failed already
		if err := c.open(); err != nil {
			return err
		}
		_ = c.ClientStream.Send(c.sent) // Receive finds what is wrong
		_ = c.CloseSend()
	}
}

func (c *failoverCall) answered() {
	c.heard = true
	c.current.Store(int32(c.at))
	if c.silence != nil {
		c.silence.Stop()
	}
}

// mayRepeat: the call has certainly not been done, or does nothing.
func (c *failoverCall) mayRepeat(err error) bool {
	if c.outer.Err() != nil || c.spec.StreamType&connect.StreamTypeClient != 0 {
		return false
	}
	if hasAnswered(err) {
		return false
	}
	return connect.CodeOf(err) == connect.CodeUnavailable && isRemote(err) || !c.reached.Load() || harmless[c.spec.Procedure]
}

// hasAnswered: the error is a server's answer to the question, and not that the
// server can do nothing now.
func hasAnswered(err error) bool {
	return isRemote(err) && connect.CodeOf(err) != connect.CodeUnavailable
}

func isRemote(err error) bool {
	var answered *connect.Error
	return errors.As(err, &answered) && answered.IsRemote()
}

// name adds to an error what the servers before have said. One that was reached
// and could not decide tells more than those that were not, so it comes first.
func (c *failoverCall) name(err error) error {
	if err == nil || errors.Is(err, io.EOF) || len(c.missed) == 0 || hasAnswered(err) {
		return err
	}
	all := append(slices.Clone(c.missed), err)
	first := len(all) - 1
	if !isRemote(err) {
		first = max(slices.IndexFunc(all, isRemote), 0)
	}
	e := &noneError{first: all[first]}
	for _, other := range slices.Delete(all, first, first+1) {
		if text := sentence(other); text != sentence(e.first) && !slices.Contains(e.others, text) {
			e.others = append(e.others, text)
		}
	}
	return e
}

// noneError is the error of one server, with those of the others.
type noneError struct {
	first  error
	others []string
}

func (e *noneError) Error() string {
	return strings.Join(append([]string{sentence(e.first)}, e.others...), "; and ")
}

func (e *noneError) Unwrap() error { return e.first }

// Close implements connect.ClientStream.
func (c *failoverCall) Close() error { return c.close() }

func (c *failoverCall) close() error {
	if c.silence != nil {
		c.silence.Stop()
	}
	defer c.end()
	return c.ClientStream.Close()
}
