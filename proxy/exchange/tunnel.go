package exchange

import "time"

// Tunnel is a service's side of a conversation that is HTTP no more. One
// goroutine may read while another sends.
type Tunnel interface {
	Body
	// Send says something to the service.
	Send([]byte) error
	// CloseSend tells the service that nothing more will be said.
	CloseSend()
}

// Tunnels: the answer agrees to its tunnel.
func (x *Exchange) Tunnels() bool {
	r := &x.Response
	return r.Tunnel != nil && (r.Status == 101 && !x.Request.Connect || x.Connected())
}

// Connected: the answer is one that a client who has asked by CONNECT takes for
// the beginning of a tunnel.
func (x *Exchange) Connected() bool {
	return x.Request.Connect && x.Response.Status >= 200 && x.Response.Status < 300
}

const (
	// TunnelIdle is how long a client may be silent once it speaks something else.
	TunnelIdle = time.Hour
	// tunnelEnd is how long one side of WebSocket, where to leave is to have said
	// goodbye, may go on after the other has left.
	tunnelEnd = 5 * time.Second
)

// Client is the other side of a tunnel.
type Client struct {
	// ToService passes on what the client says until it has said all, ToClient what
	// the service says; that returns how much it was.
	ToService func() error
	ToClient  func() (int64, error)
	// Cut ends ToClient, Abort ends ToService.
	Cut, Abort func()
}

// HalfOpen is a Tunnel whose sides end each for itself: who has said all may go on
// hearing, for as long as there is something to hear.
type HalfOpen interface {
	Tunnel
	// Gone is closed when the tunnel was given up.
	Gone() <-chan struct{}
}

// Relay lets both sides of a tunnel say what they have to say, until both have
// left: each way by a goroutine of its own, ToClient by the one that calls.
func Relay(t Tunnel, c Client) (sent int64, err error) {
	half, halfOpen := t.(HalfOpen)
	ended, left := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(left)
		if c.ToService() == nil {
			t.CloseSend()
			if halfOpen {
				<-ended
				return
			}
			if hasEnded(ended) {
				return
			}
		}
		c.Cut()
	}()
	sent, err = c.ToClient()
	close(ended)
	switch {
	case err != nil:
		c.Abort()
	case halfOpen:
		select {
		case <-left:
		case <-half.Gone():
			c.Abort()
		}
	default:
		limit := time.AfterFunc(tunnelEnd, c.Abort)
		defer limit.Stop()
	}
	<-left
	return sent, err
}

// hasEnded waits for the service to leave, too, and reports whether it has.
func hasEnded(ended <-chan struct{}) bool {
	limit := time.NewTimer(tunnelEnd)
	defer limit.Stop()
	select {
	case <-ended:
		return true
	case <-limit.C:
		return false
	}
}
