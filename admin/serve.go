package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	health "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
	"github.com/weirmesh/weir/proxy/handler"
)

// grace is how long calls may still run once Serve is told to stop.
const grace = 5 * time.Second

// Serve answers on a listener until the context ends: HTTP/1.1 and HTTP/2, with
// TLS when given a configuration and else in the clear. Watches end first, the
// other calls are finished.
func Serve(ctx context.Context, l net.Listener, api http.Handler, tlsConfig *tls.Config, logger *slog.Logger) error {
	calls, endCalls := context.WithCancel(context.WithoutCancel(ctx))
	defer endCalls()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Handler:           endWatches(ctx, api),
		Protocols:         protocols,
		TLSConfig:         tlsConfig,
		BaseContext:       func(net.Listener) context.Context { return calls },
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	if tlsConfig != nil {
		handler.Configure(server, logger) // half of what a call costs with net/http's own
	}
	served := make(chan error, 1)
	go func() {
		if tlsConfig != nil {
			served <- server.ServeTLS(l, "", "")
		} else {
			served <- server.Serve(l)
		}
	}()
	select {
	case err := <-served:
		return fmt.Errorf("serve admin API: %w", err)
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	err := server.Shutdown(stopping)
	if err != nil {
		endCalls()
		err = errors.Join(err, server.Close())
	}
	<-served
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("stop admin API: %w", err)
	}
	return nil
}

// endless are the procedures that run until the caller leaves, or for minutes.
var endless = map[string]bool{
	weirv1connect.AdminServiceWatchProcedure:        true,
	weirv1connect.AdminServiceWaitRevisionProcedure: true,
	weirv1connect.ClusterServiceBackupProcedure:     true,
	health.Health_Watch_FullMethodName:              true,
}

// endWatches ends the calls that would never end by themselves when the server
// stops, and leaves the others to finish.
func endWatches(stop context.Context, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !endless[r.URL.Path] {
			next.ServeHTTP(w, r)
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(stop, cancel)()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}
