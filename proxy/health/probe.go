package health

import (
	"context"
	"fmt"
	"net"
	"net/http"
)

// Probe asks an endpoint once, over TCP or HTTP. It does not follow redirects.
func Probe(ctx context.Context, address string, check *Check) error {
	if check.HTTP == nil {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return c.Close()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+check.HTTP.Path, nil)
	if err != nil {
		return err
	}
	req.Host = check.HTTP.Host
	req.Header.Set("User-Agent", "weir-health-check")
	// A connection for each check: one that is kept would find that an endpoint
	// which accepts no more is well.
	transport := http.Transport{DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	for _, r := range check.HTTP.Expected {
		if resp.StatusCode >= r.Start && resp.StatusCode < r.End {
			return nil
		}
	}
	return fmt.Errorf("it answers %s", resp.Status)
}
