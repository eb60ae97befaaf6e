"""What Cardigan shows in a notebook beside plain output: the widget of `Model.explore`. Needs anywidget."""
