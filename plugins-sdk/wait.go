package sdk

import (
	"encoding/binary"
	"errors"
	"time"
)

// Waiting is a call that the host answers itself (weir.wait). Other hosts do not know
// it: there nothing is waited for.

// Sleep has the exchange wait for so long. Return its result:
//
//	return r.Sleep(time.Second, func() sdk.Action { return sdk.Continue })
//
// What holds for [Request.Call] holds for it.
func (r *Request) Sleep(d time.Duration, then func() Action) Action {
	return r.sleep(d, false, then)
}

// Sleep is as that of a request.
func (r *Response) Sleep(d time.Duration, then func() Action) Action { return r.sleep(d, true, then) }

func (x *Exchange) sleep(d time.Duration, response bool, then func() Action) Action {
	token, err := beginWait(d, 0, "")
	if err != nil {
		return then()
	}
	return x.await(token, response, func(*Reply) Action { return then() })
}

// WaitShared has the exchange wait until the value under a key has another version
// than this one ([Absent]: until there is a value), and no longer than most. It is for
// what another sandbox has undertaken to find out. Return its result.
func (r *Request) WaitShared(key string, version uint32, most time.Duration, then func(changed bool) Action) Action {
	return r.waitShared(key, version, most, false, then)
}

// WaitShared is as that of a request.
func (r *Response) WaitShared(key string, version uint32, most time.Duration, then func(changed bool) Action) Action {
	return r.waitShared(key, version, most, true, then)
}

func (x *Exchange) waitShared(key string, version uint32, most time.Duration, response bool, then func(bool) Action) Action {
	token, err := beginWait(most, version, key)
	if err != nil {
		return then(false)
	}
	return x.await(token, response, func(r *Reply) Action { return then(r.Err == nil) })
}

// After calls then after so long, when no exchange can be looked at. What must be kept
// up is better done by OnTick: a sandbox that is retired takes what it waits for with it.
func After(d time.Duration, then func()) error {
	vm := running()
	if vm == nil {
		return errors.New("wait: no method of a handler runs")
	}
	token, err := beginWait(d, 0, "")
	if err != nil {
		return err
	}
	vm.await(token, waiting{then: func(*Reply) Action { then(); return Continue }})
	return nil
}

func beginWait(most time.Duration, version uint32, key string) (token uint32, err error) {
	message = append(number(number(message[:0], milliseconds(most)), version), key...)
	result, err := Foreign("weir.wait", message)
	switch {
	case err != nil:
		return 0, err
	case len(result) != 4:
		return 0, errCut
	}
	return binary.LittleEndian.Uint32(result), nil
}
