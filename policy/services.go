package policy

import (
	"context"

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
