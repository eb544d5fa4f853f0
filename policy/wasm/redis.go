package wasm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/wasm/abi"
	"github.com/weirmesh/weir/proxy/exchange"
)

// Higress's functions for Redis: the guest says once who it is (proxy_redis_init),
// then sends commands as they travel (proxy_redis_call) and is told of each answer by
// proxy_on_redis_call_response(root, token, status, size), which it reads as buffer 9.

const (
	// maxRedisInits is how many services a policy prepares.
	maxRedisInits = 16
	// What the callback is told: there is an answer, or get_status says why not.
	redisAnswered = 0
	redisFailed   = 1
)

// redisSettings are what a guest has said of a service.
type redisSettings struct {
	username, password string
	database           int
	timeout            time.Duration
}

// redisInits are a policy's, which its VMs share: all are configured alike.
type redisInits struct {
	mu  sync.Mutex
	all map[string]redisSettings // by the service's name
}

func (r *redisInits) set(name string, s redisSettings) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, again := r.all[name]; !again && len(r.all) >= maxRedisInits {
		return false
	}
	if r.all == nil {
		r.all = map[string]redisSettings{}
	}
	r.all[name] = s
	return true
}

func (r *redisInits) of(name string) (redisSettings, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.all[name]
	return s, ok
}

// redisCall is what a call of Redis has beside the others.
type redisCall struct {
	services policy.Services
	bytes    policy.Bytes
	settings redisSettings
	command  []byte
}

// Do implements policy.Call.
func (r *redisCall) Do(context.Context, *exchange.Exchange) error { return errors.ErrUnsupported }

// Close implements policy.Call.
func (r *redisCall) Close(*exchange.Exchange) { r.bytes.Close() }

// run is the call's goroutine.
func (r *redisCall) run(c *call) {
	reply, err := r.ask(c)
	status := uint32(redisAnswered)
	if c.body = reply; err != nil {
		c.fail(err)
		status = redisFailed
	}
	c.tell(true, cbRedisCallResponse, c.token, status, uint32(len(reply)))
}

func (r *redisCall) ask(c *call) ([]byte, error) {
	if err := r.bytes.Begin(); err != nil {
		return nil, err
	}
	key := redisKey{r.bytes.Same(), r.settings.username, r.settings.password, r.settings.database}
	for {
		reply, kept, err := r.askOver(c, key)
		switch {
		case err != errRedisStale:
			return reply, err
		case !kept:
			return nil, errRedisGone
		}
	}
}

// askOver asks over one connection; kept: it was there before.
func (r *redisCall) askOver(c *call, key redisKey) (reply []byte, kept bool, err error) {
	kept = true
	p := c.vm.policy
	conn, err := p.redis.take(c.ctx, key, func(ctx context.Context) (*redisConn, error) {
		kept = false
		raw, err := r.bytes.Connect(ctx)
		if err != nil {
			return nil, err
		}
		return p.redis.adopt(ctx, raw, key, r.services, p.host.config.CallBytes)
	})
	if err != nil {
		return nil, kept, err
	}
	reply, err = conn.ask(c.ctx, r.command)
	p.redis.put(conn, err == nil && p.grantStands(conn.services))
	return reply, kept, err
}

// redisService finds the service that a guest names, as "name" or "name?db=N", which
// may have more parameters; those are about Envoy's buffers.
func (v *vm) redisService(given []byte) (name string, database int, b policy.Bytes, s policy.Services, status abi.Status) {
	name, query, _ := strings.Cut(string(given), "?")
	for parameter := range strings.SplitSeq(query, "&") {
		if db, is := strings.CutPrefix(parameter, "db="); is {
			n, err := strconv.ParseUint(db, 10, 16)
			if err != nil {
				v.policy.log.line(v, abi.Error, fmt.Sprintf("cannot ask service %q: %q is no number of a database", clip(name), clip(db)))
				return "", 0, nil, nil, abi.BadArgument
			}
			database = int(n)
		}
	}
	if s = v.policy.services(); v.effective != nil {
		s = v.effective.services
	}
	err := policy.ErrNotGranted
	if s != nil {
		b, err = s.Bytes(name)
	}
	switch {
	case err == policy.ErrNotGranted:
		v.policy.log.line(v, abi.Error, fmt.Sprintf("cannot ask service %q: %s", clip(name), v.policy.grants(s)))
	case err != nil:
		v.policy.log.line(v, abi.Error, fmt.Sprintf("cannot ask service %q for Redis: %v", clip(name), err))
	default:
		return name, database, b, s, abi.OK
	}
	return "", 0, nil, nil, abi.BadArgument
}

// proxyRedisInit remembers who the guest is to a service. Nothing is sent yet: the
// first call finds out whether that is true. The newest counts.
func proxyRedisInit(v *vm, s stack) abi.Status {
	service, a := v.read(s.u32(0), s.u32(1))
	username, b := v.read(s.u32(2), s.u32(3))
	password, c := v.read(s.u32(4), s.u32(5))
	if !a || !b || !c {
		return abi.InvalidMemoryAccess
	}
	v.drawBytes(len(service) + len(username) + len(password))
	if len(service) > maxName || len(username) > maxName || len(password) > maxName {
		return abi.BadArgument
	}
	set := redisSettings{username: string(username), password: string(password), timeout: time.Duration(s.u32(6)) * time.Millisecond}
	if set.timeout == 0 || set.timeout > maxCallTime {
		set.timeout = maxCallTime
	}
	name, database, granted, _, status := v.redisService(service)
	if status != abi.OK {
		return status
	}
	granted.Close()
	set.database = database
	if !v.policy.redisInits.set(name, set) {
		v.policy.log.line(v, abi.Error, fmt.Sprintf("cannot prepare service %q: a policy asks at most %d for Redis", clip(name), maxRedisInits))
		return abi.BadArgument
	}
	return abi.OK
}

// proxyRedisCall sends one command, whose answer comes by the callback.
func proxyRedisCall(v *vm, s stack) abi.Status {
	service, a := v.read(s.u32(0), s.u32(1))
	command, b := v.read(s.u32(2), s.u32(3))
	if !a || !b || !v.writable(s.u32(4)) {
		return abi.InvalidMemoryAccess
	}
	v.drawBytes(len(service) + len(command))
	v.draw(fuelPerRequest)
	if len(service) > maxName || len(command) > v.policy.host.config.CallBytes {
		return abi.BadArgument
	}
	arguments, err := parseCommand(command)
	if err == nil {
		v.draw(int64(len(arguments)) * fuelPerEdit)
		err = keepsTo(arguments)
	}
	if err != nil {
		v.policy.log.line(v, abi.Error, "cannot send a command to Redis: "+err.Error())
		return abi.BadArgument
	}
	r := &redisCall{command: bytes.Clone(command)}
	made, status := v.beginRedis(service, r)
	if status == abi.OK {
		v.mem.WriteUint32Le(s.u32(4), made.token)
	}
	return status
}

func (v *vm) beginRedis(service []byte, r *redisCall) (*call, abi.Status) {
	p := v.policy
	if p.pool.closed.Load() && v.effective == nil {
		return nil, abi.InternalFailure // nothing that the root begins would matter
	}
	name, database, granted, services, status := v.redisService(service)
	if status != abi.OK {
		return nil, status
	}
	set, ready := p.redisInits.of(name)
	if !ready {
		granted.Close()
		p.log.line(v, abi.Error, fmt.Sprintf("cannot ask service %q: proxy_redis_init has not prepared it", clip(name)))
		return nil, abi.BadArgument
	}
	if bytes.Contains(service, []byte("?")) {
		set.database = database
	}
	if !p.admitCall() {
		granted.Close()
		p.log.line(v, abi.Warn, "cannot ask a service: too many calls are in flight")
		return nil, abi.InternalFailure
	}
	r.services, r.bytes, r.settings = services, granted, set
	c := &call{vm: v, do: r, redis: r}
	c.ctx, c.cancel = context.WithTimeout(p.host.ctx, set.timeout)
	v.launch(c)
	return c, abi.OK
}

// grantStands says whether a Make that is not released was given these services.
func (p *Policy) grantStands(services policy.Services) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.uses, func(u *use) bool { return u.granted == services })
}
