"""What a serving cluster gets: a lane's model repository, and a real server to try it in."""
