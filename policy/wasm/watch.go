package wasm

import (
	"context"
	"encoding/binary"
	"slices"
	"time"

	"github.com/weirmesh/weir/policy/wasm/abi"
	"github.com/weirmesh/weir/proxy/exchange"
)

// watch is a call that no service answers, but the clock, or the tenant's shared data:
// whoever waits for what another VM has asked for waits by it. It is admitted, owned and
// told as any call is.
type watch struct {
	data    *tenantData
	key     []byte // empty: the clock alone
	version uint32
	wait    func(ctx context.Context, changed <-chan struct{})
}

// beginWatch is the foreign function weir.wait. It takes milliseconds, a version and a
// key, and returns the token of a call, which is answered 204 as soon as the value has
// another version, and not at all when the time is over.
func beginWatch(v *vm, b []byte) ([]byte, abi.Status) {
	p := v.policy
	a := argumentsOf(b)
	most, version, key := time.Duration(a.number())*time.Millisecond, a.number(), a.rest()
	if a.bad || len(key) > maxSharedKey {
		return nil, abi.BadArgument
	}
	v.draw(fuelPerRequest)
	if p.pool.closed.Load() && v.effective == nil {
		return nil, abi.InternalFailure
	}
	if !p.admitCall() {
		p.log.line(v, abi.Warn, "cannot wait: too many calls are in flight")
		return nil, abi.InternalFailure
	}
	most = min(most, maxCallTime)
	w := &watch{data: p.data, key: slices.Clone(key), version: version}
	c := &call{vm: v, do: w}
	if wait := p.host.config.Wait; wait != nil {
		w.wait = func(ctx context.Context, changed <-chan struct{}) { wait(ctx, most, changed) }
		c.ctx, c.cancel = context.WithCancel(p.host.ctx)
	} else {
		w.wait = func(ctx context.Context, changed <-chan struct{}) {
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
		c.ctx, c.cancel = context.WithTimeout(p.host.ctx, most)
	}
	v.launch(c)
	v.scratch = binary.LittleEndian.AppendUint32(v.scratch[:0], c.token)
	return v.scratch, abi.OK
}

// Do implements policy.Call.
func (w *watch) Do(ctx context.Context, x *exchange.Exchange) error {
	changed := w.data.watch(w.key, w.version)
	defer w.data.unwatch(w.key, changed)
	w.wait(ctx, changed)
	select {
	case <-changed:
		x.Response.Status = 204
		return nil
	default:
		return context.DeadlineExceeded
	}
}

// Close implements policy.Call.
func (w *watch) Close(*exchange.Exchange) {}

// watch returns what is closed when the value under a key is of another version: at
// once where it already is, and never for no key.
func (t *tenantData) watch(key []byte, version uint32) chan struct{} {
	changed := make(chan struct{})
	if len(key) == 0 {
		return changed
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := uint32(noVersion)
	if s := t.values[string(key)]; s != nil {
		now = s.version
	}
	if now != version {
		close(changed)
		return changed
	}
	if t.watchers == nil {
		t.watchers = map[string][]chan struct{}{}
	}
	t.watchers[string(key)] = append(t.watchers[string(key)], changed)
	return changed
}

func (t *tenantData) unwatch(key []byte, changed chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	left := slices.DeleteFunc(t.watchers[string(key)], func(c chan struct{}) bool { return c == changed })
	if len(left) == 0 {
		delete(t.watchers, string(key))
		return
	}
	t.watchers[string(key)] = left
}
