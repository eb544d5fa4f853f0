package proxy

import "github.com/weirmesh/weir/proxy/exchange"

// Meter counts answers. It is met by meter.Journal.
type Meter interface {
	// Count is called once for each answer to a consumer, when all of its head is
	// known and nothing of it has gone out. It neither waits nor keeps the exchange.
	Count(x *exchange.Exchange)
}

// meter counts the answer that the consumer is about to get, whoever made it. A client
// that has left gets none.
func (s *session) meter(x *exchange.Exchange) {
	if s.proxy.cfg.Meter == nil || s.life.now().Err() != nil {
		return
	}
	s.proxy.cfg.Meter.Count(x)
}
