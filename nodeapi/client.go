package nodeapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/sync/singleflight"

	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/nodeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

// ClientConfig is what a proxy's side of the node API is made of. All but
// Labels, Version, Dialer and the functions is required.
type ClientConfig struct {
	Identity *identity.Identity
	Servers  []string
	// Dir keeps the last good configuration and blobs, sealed by Keyring.
	Dir     string
	Keyring *identity.Keyring
	Labels  map[string]string
	Version string
	Logger  *slog.Logger
	// Problem says what of the configuration in force is not so; "" for nothing.
	// It is asked with each heartbeat. nil: nobody says.
	Problem func() string
	// Canaries says how the canaries of plugins fare. It is asked with each
	// heartbeat. nil: nobody says.
	Canaries func() []*weirv1.PluginReport
	// Ahead is told of each change as it comes, while an earlier one may still be being
	// applied. What is in it is applied later, unless it is refused or replaced by then.
	// nil: nobody is told.
	Ahead func(Update)
	// ShutOut is told the keys of proxies that are none any more: those that some server
	// knows now, each time there are others. keep: they may be written to disk, which a
	// client that is held leaves to another process. It is told by one goroutine at a time.
	// nil: nobody is told, and no server asked.
	ShutOut func(keys *weirv1.ShutOut, keep bool)
	// Dialer is shared with others; nil: the client has one of its own.
	Dialer *nodeport.Dialer
}

// Client is a proxy's side of the node API.
type Client struct {
	cfg     ClientConfig
	blobs   blobs
	journal *journal
	fetches singleflight.Group
	roster  *roster
	dialer  *nodeport.Dialer
	// The constants of these names; tests are in more of a hurry.
	heartbeat, retryMin, spread, returnSpread, lookAround time.Duration

	// holding ends when Hold is called, and held is closed once that is done; see hold.go.
	holding context.Context
	hold    context.CancelFunc
	held    chan struct{}
	// disk is locked by what the servers tell and is written as it comes, until the client
	// is held. Whoever has it may take mu.
	disk sync.Mutex

	// life ends with Run, and with it all fetches.
	life     context.Context
	end      context.CancelFunc
	fetching sync.WaitGroup

	mu    sync.Mutex
	ended bool
	live  *link // the one that streams; nil: none
	// renewal is when the certificate is renewed as a server has asked; nil: it
	// has not.
	renewal *time.Timer
}

// NewClient makes a client; Run runs it.
func NewClient(cfg ClientConfig) (*Client, error) {
	if len(cfg.Servers) == 0 {
		return nil, errors.New("start node client: no server's address is given")
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("start node client: %w", err)
	}
	roster, err := openRoster(cfg.Dir, cfg.Identity.ID().Name, cfg.Servers)
	if err != nil {
		cfg.Logger.Warn("list of servers is damaged; those that were configured are asked", "error", err)
	}
	dialer := cfg.Dialer
	if dialer == nil {
		dialer = nodeport.NewDialer(nodeport.DialerConfig{Logger: cfg.Logger})
	}
	life, end := context.WithCancel(context.Background())
	holding, hold := context.WithCancel(life)
	return &Client{
		roster:    roster,
		dialer:    dialer,
		cfg:       cfg,
		life:      life,
		end:       end,
		holding:   holding,
		hold:      hold,
		held:      make(chan struct{}),
		blobs:     blobs{dir: filepath.Join(cfg.Dir, "blobs")},
		journal:   newJournal(cfg.Dir, cfg.Identity.TrustDomain(), cfg.Keyring),
		heartbeat: heartbeat, retryMin: applyRetryMin, spread: spread, returnSpread: returnSpread, lookAround: lookAround,
	}, nil
}

// Apply puts an update into force, or says why not.
type Apply func(ctx context.Context, u Update) error

// Run feeds apply until ctx ends: first with the last good configuration from
// disk, then with what the servers send. It also keeps the certificate fresh.
// It calls apply from one goroutine, and may be called once.
func (c *Client) Run(ctx context.Context, apply Apply) error {
	if c.cfg.Dialer == nil {
		defer c.dialer.Close()
	}
	defer c.journal.close()
	defer c.endFetches()
	ctx, cancel := context.WithCancel(ctx)
	work, stop := context.WithCancelCause(ctx) // until the client is held
	defer context.AfterFunc(c.holding, func() { stop(errHeld) })()
	var keeping sync.WaitGroup
	keeping.Go(func() { c.cfg.Identity.Maintain(work, c.cfg.Logger, c.renew) })
	defer keeping.Wait()
	defer cancel()

	f := &follower{client: c, apply: apply, held: c.boot(work, apply)}
	f.quiet = sync.OnceFunc(func() {
		keeping.Wait()
		c.disk.Lock() // what is being written is written then
		defer c.disk.Unlock()
		c.journal.leave()
		close(c.held)
	})
	c.followAll(ctx, work, f)
	<-ctx.Done()
	return context.Cause(ctx)
}

// followAll follows one stream after the other until ctx ends; and once the work has
// ended, which is when the client is held, until the one that goes on has a stream.
func (c *Client) followAll(ctx, work context.Context, f *follower) {
	for pace := (pace{spread: c.spread}); ctx.Err() == nil; {
		try := work
		if work.Err() != nil {
			f.quiet()
			try = ctx
		}
		f.mend(work)
		server, good, err := c.follow(ctx, try, work, f)
		switch {
		case work.Err() != nil && connect.CodeOf(err) == connect.CodeAborted:
			return // also where the stream was there before the client was held
		case try.Err() != nil:
			continue
		}
		f.search.note(c.cfg.Logger, server, good, err)
		switch {
		case errors.Is(err, errReturn):
			c.cfg.Logger.Info("connecting again, over QUIC", "server", server)
			continue
		case errors.Is(err, errLookAround):
			continue
		case isLeaderless(err): // the search has told
		case good && nodeport.GoingAway(err):
			c.cfg.Logger.Info("the server stops; connecting to another", "server", server)
		default:
			c.cfg.Logger.Warn("no stream from the servers; connecting again", "server", server, "error", err)
		}
		if connect.CodeOf(err) == connect.CodeUnauthenticated {
			// The certificate is good for one thing yet.
			c.cfg.Identity.RenewSoon()
		}
		pace.wait(try, good, err, len(c.roster.all()))
	}
}

// follow connects to a server, which it gives up when try ends, and follows its stream
// until that ends. A server that failed is the last to be tried again.
func (c *Client) follow(ctx, try, work context.Context, f *follower) (server string, good bool, err error) {
	l, err := dialAny(try, c.dialer, c.roster.all(), c.cfg.Identity.ClientTLS)
	if err != nil {
		return "", false, err
	}
	defer l.Close()
	good, err = f.session(ctx, work, l)
	if !errors.Is(err, errReturn) {
		c.roster.demote(l.address)
	}
	return l.address, good, err
}

// boot puts the configuration from disk into force, and returns what of it is.
func (c *Client) boot(ctx context.Context, apply Apply) *held {
	h, err := c.journal.load()
	if err != nil {
		c.cfg.Logger.Warn("last good configuration is damaged", "error", err, "used", h != nil)
	}
	if h == nil {
		return newHeld()
	}
	all := Update{Snapshot: true, Revision: h.at.revision, Puts: slices.Collect(maps.Values(h.resources))}
	sortResources(all.Puts)
	if err := apply(ctx, all); err != nil {
		c.cfg.Logger.Error("last good configuration from disk refused", "revision", h.at.revision, "error", err)
		h.pendingAll, h.isAccepted = true, false
		h.refuse(err.Error())
		return h
	}
	c.cfg.Logger.Info("last good configuration in force", "revision", h.at.revision, "resources", len(h.resources))
	return h
}

func (c *Client) setLive(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.live = l
}

// ask makes a call at the server that streams, and where there is none or it
// fails, at each of them.
func (c *Client) ask(ctx context.Context, call func(context.Context, weirv1connect.NodeServiceClient) error) error {
	c.mu.Lock()
	live := c.live
	c.mu.Unlock()
	var errs []error
	if live != nil {
		err := call(ctx, live.api)
		if err == nil || ctx.Err() != nil {
			return err
		}
		errs = append(errs, fmt.Errorf("%s: %w", live.address, err))
	}
	for _, address := range c.roster.all() {
		if live != nil && address == live.address && answered(errs[0]) {
			continue
		}
		err := c.askAt(ctx, address, call)
		if err == nil || ctx.Err() != nil {
			return err
		}
		errs = append(errs, fmt.Errorf("%s: %w", address, err))
	}
	return errors.Join(errs...)
}

func (c *Client) askAt(ctx context.Context, address string, call func(context.Context, weirv1connect.NodeServiceClient) error) error {
	l, err := dialBriefly(ctx, c.dialer, address, c.cfg.Identity.ClientTLS)
	if err != nil {
		return err
	}
	defer l.Close()
	return call(ctx, l.api)
}

// answered tells whether an error is what a server had to say.
func answered(err error) bool {
	var verdict *connect.Error
	return errors.As(err, &verdict) && verdict.IsRemote() && verdict.Code() != connect.CodeUnavailable
}

func (c *Client) renew(ctx context.Context, csr []byte) (issued *weirv1.Credentials, err error) {
	err = c.ask(ctx, func(ctx context.Context, api weirv1connect.NodeServiceClient) error {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		answer, err := api.Renew(ctx, &weirv1.RenewRequest{Csr: csr})
		issued = answer.GetCredentials()
		return err
	})
	return issued, err
}

// blobTimeout bounds the fetch of one blob from one server.
const blobTimeout = 2 * time.Minute

// Blob returns content by its digest: from disk, else from a server. Whoever
// asks for the same one at the same time shares one fetch.
func (c *Client) Blob(ctx context.Context, digest string) ([]byte, error) {
	data, err := c.blobs.get(digest)
	if err != nil {
		c.cfg.Logger.Warn("blob not read from disk", "digest", digest, "error", err)
	}
	if data != nil {
		return data, nil
	}
	if _, err := checkDigest(digest); err != nil {
		return nil, fmt.Errorf("get blob: %w", err)
	}
	fetched := c.fetches.DoChan(digest, func() (any, error) {
		if !c.beginFetch() {
			return nil, errEnded
		}
		defer c.fetching.Done()
		// Not the first caller's alone, so its end does not end it.
		return c.fetch(c.life, digest)
	})
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("get blob %s: %w", digest, context.Cause(ctx))
	case r := <-fetched:
		if r.Err != nil {
			return nil, fmt.Errorf("get blob %s: %w", digest, r.Err)
		}
		return r.Val.([]byte), nil
	}
}

var errEnded = errors.New("the client has ended")

func (c *Client) beginFetch() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.fetching.Add(1)
	}
	return !c.ended
}

func (c *Client) endFetches() {
	c.mu.Lock()
	c.ended = true
	if c.renewal != nil {
		c.renewal.Stop()
	}
	c.mu.Unlock()
	c.end()
	c.fetching.Wait()
}

func (c *Client) fetch(ctx context.Context, digest string) (data []byte, err error) {
	err = c.ask(ctx, func(ctx context.Context, api weirv1connect.NodeServiceClient) error {
		ctx, cancel := context.WithTimeout(ctx, blobTimeout)
		defer cancel()
		data, err = download(ctx, api, digest)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := c.blobs.put(digest, data); err != nil {
		c.cfg.Logger.Warn("blob not kept on disk", "digest", digest, "error", err)
	}
	return data, nil
}

func download(ctx context.Context, api weirv1connect.NodeServiceClient, digest string) ([]byte, error) {
	stream, err := api.GetBlob(ctx, &weirv1.GetBlobRequest{Digest: digest})
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	var data []byte
	for {
		m, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return data, verifyBlob(digest, data)
		}
		if err != nil {
			return nil, err
		}
		if len(data)+len(m.GetChunk()) > maxBlob {
			return nil, fmt.Errorf("it is bigger than %d bytes", maxBlob)
		}
		data = append(data, m.GetChunk()...)
	}
}
