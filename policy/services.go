package policy

import (
	"context"
	"errors"
	"net"

	"github.com/weirmesh/weir/proxy/exchange"
)

// Services are those that a policy may ask, by the names under which it was granted
// them. They are what one configuration makes of them: who holds a policy's filter
// holds them as the filter's exchange began with them. They may be used by any
// number of goroutines.
type Services interface {
	// Call prepares a call and holds the service until the call is closed. False:
	// there is none of that name for this policy. It does not block.
	Call(service string) (Call, bool)
	// Bytes prepares what is said to a service of bytes over a connection of the
	// caller's, and holds the service until that is closed. The error is ErrNotGranted
	// or ErrNotBytes. It does not block.
	Bytes(service string) (Bytes, error)
	// Names are those of the services, sorted.
	Names() []string
}

// Call is one request that a policy makes. It belongs to one goroutine at a time,
// and must be closed, also if nothing was sent.
type Call interface {
	// Do sends x.Request and fills in the head of x.Response, whose body is then to
	// be read. Both end with the context. An error says why there is no answer; a
	// status that tells of a failure is none.
	Do(ctx context.Context, x *exchange.Exchange) error
	// Close gives up what the call holds. Nothing of x.Response is valid any more.
	Close(x *exchange.Exchange)
}

// Why there are no bytes to be had of a service.
var (
	ErrNotGranted = errors.New("the policy is not granted it")
	ErrNotBytes   = errors.New("its protocol is not TCP: it does not speak bytes")
)

// Bytes is one question that a policy asks a service over a connection, which other
// questions may follow. It belongs to one goroutine at a time, and must be closed.
type Bytes interface {
	// Same is equal for all that lead to the same service, as one configuration has
	// it: a connection of one will do for the other.
	Same() any
	// Begin counts the question with the service's requests in flight, until Close. An
	// error says why it may not be asked.
	Begin() error
	// Connect makes a connection to one of the service's endpoints. It holds the
	// service until it is closed, which may be later than Close.
	Connect(ctx context.Context) (net.Conn, error)
	// Close gives up what the question holds.
	Close()
}
