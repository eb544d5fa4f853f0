package wasm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirmesh/weir/policy"
)

const (
	// maxRedisPer is how many connections a policy has to one service with one user
	// and database, maxRedis how many to all of them.
	maxRedisPer = 4
	maxRedis    = 16
	// redisIdle is how long a connection is kept that nobody uses.
	redisIdle = time.Minute
)

// redisKey is what must be equal for a connection to be used again: the service, who
// asks, and the database.
type redisKey struct {
	same               any
	username, password string
	database           int
}

// redisPool are a policy's connections to Redis. Each carries one command at a time,
// so that one which is slow delays no other; who finds none free waits for one. Its
// zero value is ready.
type redisPool struct {
	mu     sync.Mutex
	open   []*redisConn  // the last used last
	making []redisKey    // connections that are being made
	free   chan struct{} // closed when there may be room
	closed bool

	readers sync.WaitGroup
}

// redisConn is a connection. Its reader is a goroutine that ends with it.
type redisConn struct {
	pool     *redisPool
	key      redisKey
	services policy.Services // whose grant it was made by
	conn     net.Conn
	busy     bool // under pool.mu

	asked   atomic.Bool
	ended   atomic.Bool      // the reader has
	answers chan redisAnswer // has room for the one that was asked for, or the end
}

type redisAnswer struct {
	reply []byte
	err   error
}

var (
	errRedisClosed = errors.New("the policy is released")
	errRedisGone   = errors.New("the service has closed the connection")
	errRedisStale  = errors.New("the connection had ended before anything was sent")
)

// take finds a connection that is free, or makes one. It ends with the context.
func (p *redisPool) take(ctx context.Context, key redisKey, dial func(context.Context) (*redisConn, error)) (*redisConn, error) {
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return nil, errRedisClosed
		}
		if c := p.idle(key); c != nil {
			c.busy = true
			p.mu.Unlock()
			return c, nil
		}
		if p.room(key) {
			p.making = append(p.making, key)
			p.mu.Unlock()
			return p.dialled(ctx, key, dial)
		}
		if p.free == nil {
			p.free = make(chan struct{})
		}
		free := p.free
		p.mu.Unlock()
		select {
		case <-free:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (p *redisPool) idle(key redisKey) *redisConn {
	for _, c := range slices.Backward(p.open) {
		if !c.busy && c.key == key {
			return c
		}
	}
	return nil
}

// room says whether another connection may be made, for which one of another key that
// nobody uses makes room.
func (p *redisPool) room(key redisKey) bool {
	n := 0
	for _, c := range p.open {
		if c.key == key {
			n++
		}
	}
	for _, k := range p.making {
		if k == key {
			n++
		}
	}
	switch {
	case n >= maxRedisPer:
		return false
	case len(p.open)+len(p.making) < maxRedis:
		return true
	}
	i := slices.IndexFunc(p.open, func(c *redisConn) bool { return !c.busy })
	if i < 0 {
		return false
	}
	c := p.open[i]
	p.open = slices.Delete(p.open, i, i+1)
	c.conn.Close()
	return true
}

func (p *redisPool) dialled(ctx context.Context, key redisKey, dial func(context.Context) (*redisConn, error)) (*redisConn, error) {
	c, err := dial(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.making, key)
	p.making = slices.Delete(p.making, i, i+1)
	if err != nil {
		p.vacate()
		return nil, err
	}
	c.busy = true
	p.open = append(p.open, c)
	return c, nil
}

// vacate wakes those who wait. p.mu is the caller's.
func (p *redisPool) vacate() {
	if p.free != nil {
		close(p.free)
		p.free = nil
	}
}

// put gives a connection back, which is kept if all that was asked is answered and
// its grant stands.
func (p *redisPool) put(c *redisConn, keep bool) {
	keep = keep && c.conn.SetDeadline(time.Now().Add(redisIdle)) == nil
	if !keep {
		c.conn.Close()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c.busy = false
	p.open = slices.DeleteFunc(p.open, func(o *redisConn) bool { return o == c })
	if keep && !c.ended.Load() {
		p.open = append(p.open, c)
	}
	p.vacate()
}

// drop closes what nobody uses of the connections that were made by a grant.
func (p *redisPool) drop(services policy.Services) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = slices.DeleteFunc(p.open, func(c *redisConn) bool {
		gone := !c.busy && c.services == services
		if gone {
			c.conn.Close()
		}
		return gone
	})
	p.vacate()
}

// lost takes a connection away that has ended.
func (p *redisPool) lost(c *redisConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.open, c); i >= 0 && !c.busy {
		p.open = slices.Delete(p.open, i, i+1)
		p.vacate()
	}
}

// close closes all, and waits until no reader is left. No call is under way.
func (p *redisPool) close() {
	p.mu.Lock()
	p.closed = true
	for _, c := range p.open {
		c.conn.Close()
	}
	p.open = nil
	p.mu.Unlock()
	p.readers.Wait()
}

// adopt makes a connection of one of bytes, and logs in.
func (p *redisPool) adopt(ctx context.Context, conn net.Conn, key redisKey, services policy.Services, limit int) (*redisConn, error) {
	c := &redisConn{pool: p, key: key, services: services, conn: conn, answers: make(chan redisAnswer, 1)}
	p.readers.Go(func() { c.read(limit) })
	if err := c.login(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *redisConn) login(ctx context.Context) error {
	switch k := &c.key; {
	case k.username != "":
		if err := c.say(ctx, "AUTH", k.username, k.password); err != nil {
			return err
		}
	case k.password != "":
		if err := c.say(ctx, "AUTH", k.password); err != nil {
			return err
		}
	}
	if c.key.database != 0 {
		return c.say(ctx, "SELECT", fmt.Sprint(c.key.database))
	}
	return nil
}

// say is a command of the host's own, which must be answered with OK.
func (c *redisConn) say(ctx context.Context, arguments ...string) error {
	reply, err := c.ask(ctx, appendCommand(nil, arguments...))
	if err == nil && reply[0] != '+' {
		err = fmt.Errorf("%s is refused: %s", arguments[0], clip(string(reply[:len(reply)-2])))
	}
	return err
}

// ask sends a command and waits for the answer. After an error the connection is of
// no use: an answer may come yet, and would be taken for that of another command.
func (c *redisConn) ask(ctx context.Context, command []byte) ([]byte, error) {
	defer context.AfterFunc(ctx, func() { c.conn.Close() })()
	deadline, _ := ctx.Deadline()
	if err := c.conn.SetDeadline(deadline); err != nil {
		return nil, errRedisStale
	}
	c.asked.Store(true)
	if c.ended.Load() {
		return nil, errRedisStale
	}
	_, err := c.conn.Write(command)
	if err == nil {
		select {
		case a := <-c.answers:
			if a.err == nil {
				return a.reply, nil
			}
			err = a.err
		case <-ctx.Done():
		}
	}
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded): // the same deadline, by the connection's clock
		err = context.DeadlineExceeded
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err = errRedisGone
	}
	return nil, err
}

// read is the reader. It also sees that a connection ends which nobody uses.
func (c *redisConn) read(limit int) {
	in := bufio.NewReader(c.conn)
	for {
		reply, err := readAnswer(in, limit)
		if err == nil && !c.asked.Swap(false) {
			err = errNoRESP // nobody has asked
		}
		if err != nil {
			c.ended.Store(true)
			c.conn.Close()
			c.pool.lost(c)
			select {
			case c.answers <- redisAnswer{err: err}:
			default: // who was answered has not come for it yet
			}
			return
		}
		c.answers <- redisAnswer{reply: reply}
	}
}
