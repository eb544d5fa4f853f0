package bookshop

import "net/http"

type reviewV1 struct {
	Book   string `json:"book"`
	Reader string `json:"reader"`
	Text   string `json:"text"`
}

// reviewV2 is a reviewV1 and what was added.
type reviewV2 struct {
	reviewV1
	Stars int `json:"stars"`
}

func allReviews() []reviewV2 {
	return []reviewV2{
		{reviewV1{"1", "mira", "Read it in one sitting, by the water."}, 5},
		{reviewV1{"1", "jonas", "Too much mud."}, 3},
		{reviewV1{"2", "li", "The chapter on drawbridges alone is worth it."}, 4},
		{reviewV1{"4", "sam", "It pushed back. I kept reading, slower."}, 5},
	}
}

func reviewsV1(mux *http.ServeMux, mesh *http.Client) {
	reviews(mux, mesh, func(r reviewV2) any { return r.reviewV1 })
}

func reviewsV2(mux *http.ServeMux, mesh *http.Client) {
	reviews(mux, mesh, func(r reviewV2) any { return r })
}

func reviews(mux *http.ServeMux, mesh *http.Client, show func(reviewV2) any) {
	mux.HandleFunc("GET /reviews/{book}", func(w http.ResponseWriter, r *http.Request) {
		book := r.PathValue("book")
		if _, ok := askForBook(w, r, mesh, book, http.StatusNotFound); !ok {
			return
		}
		found := []any{}
		for _, review := range allReviews() {
			if review.Book == book {
				found = append(found, show(review))
			}
		}
		answer(w, http.StatusOK, found)
	})
}
