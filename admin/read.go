package admin

import (
	"cmp"
	"context"
	"encoding/base64"
	"strings"

	"connectrpc.com/connect/v2"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// maxPage is the most that a page holds, and what it holds unless told.
const maxPage = 1000

// allTenants stands for every tenant.
const allTenants = "*"

func (s *service) Get(ctx context.Context, req *weirv1.GetRequest) (*weirv1.GetResponse, error) {
	ref, err := knownRef(req.GetRef())
	if err != nil {
		return nil, err
	}
	staleness, syncErr := s.current(ctx, req.GetStale())
	if syncErr != nil {
		return nil, syncErr
	}
	view := s.Store.View()
	r, found := view.Get(ref)
	if !found {
		return nil, connect.Errorf(connect.CodeNotFound, "there is no %s", ref)
	}
	return &weirv1.GetResponse{Resource: r, Revision: view.Revision(), Staleness: staleness}, nil
}

func knownRef(m *weirv1.ResourceRef) (resource.Ref, *connect.Error) {
	ref := normalRef(m)
	if err := knownKind("ref.kind", ref.Kind); err != nil {
		return ref, err
	}
	if ref.Name == "" {
		return ref, invalid("ref.name", "is required")
	}
	return ref, nil
}

func knownKind(field, kind string) *connect.Error {
	if _, ok := resource.ParseKind(kind); ok {
		return nil
	}
	if near := resource.Nearest(kind, resource.Kinds()); near != "" {
		return invalid(field, "there is no kind %q; did you mean %q?", kind, near)
	}
	return invalid(field, "there is no kind %q; the kinds are %s", kind, strings.Join(resource.Kinds(), ", "))
}

// List returns a page. Its token holds the last resource of the page, so that
// what is created or deleted between two pages neither hides nor repeats others.
func (s *service) List(ctx context.Context, req *weirv1.ListRequest) (*weirv1.ListResponse, error) {
	kind := req.GetKind()
	if kind != "" {
		if err := knownKind("kind", kind); err != nil {
			return nil, err
		}
		kind, _ = resource.ParseKind(kind)
	}
	after, err := readPageToken(req.GetPageToken())
	if err != nil {
		return nil, err
	}
	staleness, syncErr := s.current(ctx, req.GetStale())
	if syncErr != nil {
		return nil, syncErr
	}
	view := s.Store.View()
	size := int(min(cmp.Or(req.GetPageSize(), maxPage), maxPage))
	res := &weirv1.ListResponse{Revision: view.Revision(), Staleness: staleness}
	for more := true; more; {
		var found []*weirv1.Resource
		found, more = view.List(kind, cmp.Or(req.GetTenant(), resource.DefaultTenant), after, maxPage)
		for _, r := range found {
			if after = resource.Of(r); !bears(r, req.GetLabels()) {
				continue
			}
			if len(res.Resources) == size {
				res.NextPageToken = writePageToken(resource.Of(res.Resources[size-1]))
				return res, nil
			}
			res.Resources = append(res.Resources, r)
		}
	}
	return res, nil
}

func bears(r *weirv1.Resource, labels map[string]string) bool {
	own := resource.Meta(r).GetLabels()
	for key, value := range labels {
		if got, ok := own[key]; !ok || got != value {
			return false
		}
	}
	return true
}

// A page token is opaque to callers; no part of a Ref holds a slash.
func writePageToken(last resource.Ref) string {
	return base64.RawURLEncoding.EncodeToString([]byte(last.Kind + "/" + last.Tenant + "/" + last.Name))
}

func readPageToken(token string) (resource.Ref, *connect.Error) {
	if token == "" {
		return resource.Ref{}, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(token)
	parts := strings.Split(string(text), "/")
	if err != nil || len(parts) != 3 {
		return resource.Ref{}, invalid("pageToken", "is not one that a List returned")
	}
	return resource.Ref{Kind: parts[0], Tenant: parts[1], Name: parts[2]}, nil
}
